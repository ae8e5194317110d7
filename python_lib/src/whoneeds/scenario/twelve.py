# SPDX-License-Identifier: GPL-3.0-or-later
"""The twelve applications by which Macroscope was judged (Tables 1 and 2), and the others that Table 4 names.

From the paper: the names, how many static dependencies each of the twelve has, which kinds of ports they use
(enterprise proxy 911, proxy discovery 9090, EPMAP 135, LDAP 389, Active Directory 1025, McAfee's 8440 and 8442,
Intel's 16993, Web, HTTPS), that FrameworkService and BESClient make no transient connections, that half of
FrameworkService's instances use the Web, that SearchProtocolHost uses Active Directory, EPMAP, DNS and the Web, that
the system asks DNS in the name of all others through lsass, that Outlook's connections to the mail server are long and
go to ephemeral ports that come again (some by 34 % of users and 15 % of instances), that Skype talks to peers, and that
some of Winword's services are rarely used.

Our choice, since the paper does not say: which further services make up the number, how often each is used, how long
connections last, and all that is not named above. Names are as Windows writes executables, in lower case.
"""

from dataclasses import replace

from whoneeds.scenario.habits import Action, Application, Ports, Step

LSASS = "lsass.exe"

#: Static services of each of the twelve (Table 2); a service on both TCP and UDP counts once.
TABLE_2 = {
    "communicator.exe": 8, "pwconsole.exe": 8, "frameworkservice.exe": 6, "outlook.exe": 8, "besclient.exe": 5,
    "winword.exe": 8, "lsass.exe": 7, "searchprotocolhost.exe": 4, "skype.exe": 3, "uns.exe": 1, "userinit.exe": 1,
    "conf.exe": 2,
}  # fmt: skip


def resolve(share: float = 0.2) -> Step:
    """A question to the name service, which the system asks; most answers are in its cache."""
    return Step(
        "udp", 53, "dns", share=share, delay_s=0.05, median_s=0.03, sigma=0.6, sent_bytes=45, received_bytes=160,
        by=LSASS,
    )  # fmt: skip


_PROXY = Step("tcp", 911, "proxy", median_s=8.0, sigma=1.4, received_bytes=18000)
_DISCOVERY = Step("tcp", 9090, "discovery", median_s=0.3, sigma=0.8)
_WEB = Step("tcp", 80, "intranet", median_s=4.0, sigma=1.4, received_bytes=15000)
_SECURE = Step("tcp", 443, "intranet", median_s=6.0, sigma=1.3, received_bytes=15000)
_EPMAP = Step("tcp", 135, "dc", median_s=1.5, sigma=1.0)
_LDAP = Step("tcp", 389, "dc", median_s=6.0, sigma=1.5)
_AD = Step("tcp", 1025, "dc", median_s=5.0, sigma=1.3)
_CATALOGUE = Step("tcp", 3268, "dc", median_s=8.0, sigma=1.3)
_FILES = Step("tcp", 445, "files", median_s=60.0, sigma=1.6, received_bytes=60000)
_NETBIOS = Step("tcp", 139, "files", median_s=10.0, sigma=1.3)
COMMON = {
    911: _PROXY, 9090: _DISCOVERY, 80: _WEB, 443: _SECURE, 135: _EPMAP, 389: _LDAP, 1025: _AD, 3268: _CATALOGUE,
    445: _FILES, 139: _NETBIOS,
}  # fmt: skip


def the_twelve(recurring_share: float) -> tuple[Application, ...]:
    """The applications of Table 1.

    Parameters
    ----------
    recurring_share : float
        Share of connections to recurring ports, where a program has such.
    """
    # a mail server gives its services ports when it starts, and its users meet these for weeks
    exchange = Ports(1100, 5000, recurring=24, recurring_share=recurring_share * 0.5, whose="server", skew=0.6)
    voice = Ports(1025, 65000)
    contacts = Ports(1025, 65535, recurring=25, recurring_share=recurring_share, whose="host", skew=0.8)
    share_screen = Ports(1025, 5000, recurring=6, recurring_share=recurring_share, whose="host", skew=0.5)
    negotiated = Ports(1026, 1400, recurring=6, recurring_share=recurring_share, whose="server", skew=0.8)
    return (
        Application("communicator.exe", (
            Action("start", (
                resolve(), replace(_LDAP, share=0.7), _DISCOVERY, replace(_PROXY, share=0.8),
                Step("tcp", 5061, "messaging", median_s=3.0),
                replace(_EPMAP, share=0.35), replace(_AD, share=0.4),
            )),
            Action("held", (Step("tcp", 5061, "messaging", median_s=3600, sent_bytes=40000),), every_s=10800),
            Action("random", (resolve(), _SECURE, replace(_WEB, share=0.5)), every_s=5400),
            Action("random", (Step("tcp", voice, "peers", median_s=90, sigma=1.3),), every_s=14400),
        ), lifetime="kept", on_share=0.9, delay_s=120, restarts_per_day=0.1),
        Application("pwconsole.exe", (
            Action("start", (
                resolve(), _DISCOVERY, _PROXY, replace(_SECURE, share=0.9),
                Step("tcp", 8057, "meetings", median_s=1200, sigma=0.9), replace(_WEB, share=0.5),
                replace(_LDAP, instances_share=0.5), replace(_EPMAP, instances_share=0.3),
                Step("tcp", 1270, "meetings", instances_share=0.05, median_s=4.0),
            )),
            Action("random", (Step("tcp", voice, "peers", median_s=300),), every_s=1500),
        ), on_share=0.75, every_s=30000, median_s=2400),
        Application("frameworkservice.exe", (
            Action("start", (resolve(), replace(_DISCOVERY, share=0.8), replace(_PROXY, share=0.7))),
            Action("periodic", (
                resolve(), Step("tcp", 8440, "antivirus", share=0.5, median_s=4.0),
                Step("tcp", 8442, "antivirus", share=0.5, median_s=4.0), replace(_WEB, instances_share=0.5, share=0.5),
            ), every_s=3600, jitter_s=30),
            Action("periodic", (replace(_EPMAP, instances_share=0.6),), every_s=14400),
        ), lifetime="boot", uid=18, delay_s=25),
        Application("outlook.exe", (
            Action("start", (
                resolve(), replace(_EPMAP, share=0.95), replace(_LDAP, share=0.8), replace(_AD, share=0.5),
                replace(_CATALOGUE, share=0.6), replace(_DISCOVERY, share=0.5),
            )),
            Action("held", (Step("tcp", exchange, "mail", median_s=3600, sent_bytes=60000, received_bytes=900000),),
                   every_s=7200, pool=3, jitter_s=6),
            Action("random", (Step("tcp", exchange, "mail", median_s=300, sigma=1.5, received_bytes=30000),),
                   every_s=4000),
            Action("random", (resolve(), replace(_PROXY, share=0.8), replace(_WEB, share=0.6),
                              replace(_SECURE, share=0.3)), every_s=6000),
        ), lifetime="kept", on_share=0.97, delay_s=180, restarts_per_day=0.4),
        Application("besclient.exe", (
            Action("start", (resolve(), _LDAP, replace(_AD, share=0.9), replace(_EPMAP, share=0.8))),
            Action("periodic", (Step("tcp", 52311, "relays", median_s=1.2, sent_bytes=6000),),
                   every_s=3600, jitter_s=60),
            Action("periodic", (resolve(), replace(_WEB, share=0.6)), every_s=10800, jitter_s=60),
        ), lifetime="boot", uid=18, delay_s=40, listens=(("udp", 52311),)),
        Application("winword.exe", (
            Action("start", (replace(_FILES, share=0.5), replace(_LDAP, share=0.12), replace(_EPMAP, share=0.1))),
            Action("random", (resolve(), replace(_PROXY, share=0.6), replace(_WEB, share=0.5),
                              replace(_SECURE, share=0.25)), every_s=2700),
            Action("start", (
                replace(_AD, instances_share=0.012),
                Step("tcp", 8080, "intranet", instances_share=0.008, median_s=3.0),
            )),
            Action("random", (Step("tcp", Ports(1025, 5000), "peers", instances_share=0.1, median_s=20),),
                   every_s=3000),
        ), on_share=0.95, every_s=9000, median_s=1500),
        Application(LSASS, (
            Action("start", (
                Step("udp", 53, "dns", median_s=0.03, sigma=0.6, sent_bytes=45, received_bytes=160),
                Step("tcp", 88, "dc", median_s=0.1, sigma=0.8), _LDAP,
                Step("udp", 389, "dc", median_s=0.03, sigma=0.6), _EPMAP, _AD, replace(_FILES, share=0.4),
            )),
            Action("periodic", (
                replace(_LDAP, share=0.7), replace(_AD, share=0.5), Step("tcp", 88, "dc", median_s=0.1, sigma=0.8),
                replace(_CATALOGUE, share=0.3), Step("tcp", 53, "dns", share=0.02, median_s=0.1),
            ), every_s=7200, jitter_s=120),
            Action("random", (_EPMAP, Step("tcp", negotiated, "dc", median_s=12)), every_s=40000),
        ), lifetime="boot", uid=18, delay_s=3),
        Application("searchprotocolhost.exe", (
            Action("start", (resolve(), replace(_AD, share=0.6), replace(_EPMAP, share=0.5), replace(_WEB, share=0.6),
                             Step("udp", 53, "dns", share=0.5, median_s=0.03, sigma=0.6))),
        ), on_share=0.8, every_s=5400, median_s=240),
        Application("skype.exe", (
            Action("start", (resolve(), replace(_DISCOVERY, share=0.7), _PROXY, replace(_WEB, share=0.4))),
            Action("random", (Step("tcp", contacts, "peers", median_s=40, sigma=1.6, failing_share=0.25),),
                   every_s=400),
            Action("random", (Step("udp", Ports(1025, 65535), "peers", median_s=20, sigma=1.5, failing_share=0.3),),
                   every_s=600),
        ), lifetime="kept", on_share=0.5, delay_s=300, listens=(("tcp", 19377),)),
        Application("uns.exe", (
            Action("start", (Step("tcp", 16993, "management", median_s=2.0),)),
            Action("periodic", (Step("tcp", 16993, "management", share=0.7, median_s=2.0),), every_s=3600),
        ), lifetime="boot", on_share=0.7, uid=18, delay_s=60, listens=(("tcp", 16992),)),
        Application("userinit.exe", (
            Action("start", (replace(_FILES, median_s=15.0),)),
        ), lifetime="login", delay_s=45, median_s=25),
        Application("conf.exe", (
            Action("start", (replace(_LDAP, share=0.8), Step("tcp", 1503, "meetings", share=0.9, median_s=900))),
            Action("random", (Step("tcp", share_screen, "peers", median_s=120),), every_s=500),
        ), on_share=0.25, every_s=40000, median_s=1500),
    )  # fmt: skip


def table_4(recurring_share: float) -> tuple[Application, ...]:
    """The applications of Table 4 that are not among the twelve, with the kinds of services that they are known for."""
    negotiated = Ports(1026, 1400, recurring=3, recurring_share=recurring_share, whose="server", skew=0.8)
    odd = Ports(chosen=(8080, 8000, 81, 8443, 8888, 8081, 7001, 3000, 9443, 8090, 8181, 5000, 4443, 2082, 10000))
    browse = (
        resolve(0.4), replace(_DISCOVERY, share=0.05), replace(_PROXY, share=0.9), replace(_PROXY, share=0.7),
        replace(_PROXY, share=0.5), replace(_WEB, share=0.5), replace(_SECURE, share=0.3),
    )  # fmt: skip
    directory = (replace(_EPMAP, share=0.6), replace(_LDAP, share=0.6), replace(_AD, share=0.5))
    odd_step = Step("tcp", odd, "peers", users_share=0.6, median_s=5.0)
    return (
        Application("iexplore.exe", (
            Action("start", (replace(_DISCOVERY, share=0.8), *(replace(step, share=0.2) for step in directory))),
            Action("random", browse, every_s=1200),
            Action("random", (odd_step,), every_s=2400),
            Action("random", (Step("tcp", 21, "files", instances_share=0.02, median_s=20.0),), every_s=1800),
        ), on_share=1.0, every_s=5400, median_s=1500),
        Application("x1service.exe", (
            Action("start", (*directory, replace(_FILES, share=0.5), replace(_DISCOVERY, share=0.6))),
            Action("periodic", (
                replace(_WEB, share=0.6), replace(_PROXY, share=0.3), replace(_SECURE, share=0.3),
                Step("tcp", 8380, "search", median_s=6.0), Step("tcp", 8381, "search", share=0.3, median_s=2.0),
            ), every_s=2400, jitter_s=60),
        ), lifetime="boot", on_share=0.4, uid=18),
        Application("svchost.exe", (
            Action("start", (*directory, Step("udp", 123, "dc", median_s=0.05), replace(_FILES, share=0.3))),
            Action("periodic", (
                resolve(), replace(_WEB, share=0.5), replace(_PROXY, share=0.4), replace(_SECURE, share=0.3),
                Step("udp", 123, "dc", median_s=0.05), replace(_DISCOVERY, share=0.2),
            ), every_s=7200, jitter_s=120),
        ), lifetime="boot", uid=20),
        Application("winproj.exe", (
            Action("start", (*directory, replace(_FILES, share=0.6), Step("tcp", 3180, "databases", median_s=30))),
            Action("random", (
                resolve(), replace(_WEB, share=0.6), replace(_PROXY, share=0.4), replace(_SECURE, share=0.3),
                replace(_DISCOVERY, share=0.3),
            ), every_s=1500),
        ), on_share=0.25, every_s=20000, median_s=2400),
        Application("firefox.exe", (
            Action("start", (replace(_DISCOVERY, share=0.8), replace(_LDAP, instances_share=0.05))),
            Action("random", browse, every_s=1000),
            Action("random", (odd_step,), every_s=2000),
        ), on_share=0.4, every_s=6000, median_s=2400),
        Application("spoolsv.exe", (
            Action("start", (*directory, replace(_FILES, share=0.3), replace(_NETBIOS, share=0.2))),
            Action("random", (
                replace(_EPMAP, share=0.5), Step("tcp", negotiated, "printers", share=0.6, median_s=8),
                Step("tcp", 9100, "printers", median_s=12), Step("tcp", 515, "printers", share=0.2, median_s=9),
            ), every_s=9000),
        ), lifetime="boot", uid=18),
        Application("mmc.exe", (
            Action("start", (*directory, replace(_CATALOGUE, share=0.5), Step("tcp", 88, "dc", share=0.5, median_s=0.1),
                             Step("tcp", negotiated, "dc", share=0.7, median_s=30))),
            Action("random", (replace(_FILES, share=0.3), Step("tcp", 3389, "servers", share=0.1, median_s=300)),
                   every_s=900),
        ), on_share=0.12, every_s=30000, median_s=900),
    )  # fmt: skip
