"""The points, in the order of the documents they are from."""

from collections.abc import Iterator

from canister.checks import behaviour, cookies
from canister.checks.finding import Check, Finding, Point, Result, Verdict
from canister.checks.subject import Settings, subject
from canister.checks.transport import keys, links, plain_http

POINTS = (
    # OWASP Session Management Cheat Sheet
    Point("O1", "the cookie's name tells nothing", cookies.name),
    Point("O2", "ids of 128 bits or more from a secure random generator", cookies.entropy),
    Point("O3", "ids have no meaning", cookies.no_meaning),
    Point("O4", "the repository is protected", behaviour.hashed),
    Point("O5", "ids are accepted from the cookie only", "take no id from a URL or a body; no adapter does"),
    Point("O6", "Secure, HttpOnly, SameSite, no Domain, not persistent", cookies.attributes),
    Point("O7", "never http for a session that is used over https", plain_http),
    Point("O8", "an id that was never issued is refused and flagged", behaviour.never_issued),
    Point("O9", "ids are untrusted input", behaviour.untrusted),
    Point("O10", "a new id at every change of privilege", behaviour.new_at_log_in),
    Point("O12", "an end invalidates both sides", cookies.ends_at_the_client),
    Point("O13", "an idle timeout, enforced on the server", behaviour.idle_is_short),
    Point("O14", "an absolute timeout", behaviour.absolute),
    Point("O15", "a renewal timeout", behaviour.renewal),
    Point("O16", "log-out invalidates on the server", behaviour.ends_at_log_out),
    Point("O17", "ids are never cached", cookies.caching),
    Point("O18", "guessing and anomalies are detected", "subscribe to unknown-token and retired-token-used"),
    Point("O19", "the life of sessions is logged, the ids hashed", behaviour.events),
    Point("O20", "pages that manage sessions are protected", "check who may open them"),
    Point("O21", "a policy on concurrent log-ons", behaviour.cap),
    # ASVS 5.0
    Point("V7.1.1", "lifetimes are documented", "write down why yours are as they are"),
    Point("V7.1.2", "the number of parallel sessions is documented", "write down max_sessions and at_cap"),
    Point(
        "V7.1.3", "lifetimes of federated systems are coordinated", "compare with your identity provider's"
    ),
    Point("V7.2.1", "tokens are verified by a trusted back end", behaviour.untrusted),
    Point("V7.2.2", "tokens are generated, not static", cookies.entropy),
    Point("V7.2.3", "reference tokens have 128 bits or more", cookies.entropy),
    Point("V7.2.4", "a new token at log-in and at every further one", behaviour.new_at_log_in),
    Point("V7.3.1", "an inactivity timeout", behaviour.idle),
    Point("V7.3.2", "an absolute maximum lifetime", behaviour.absolute),
    Point("V7.4.1", "log-out and expiry end the session", behaviour.ends_at_log_out),
    Point("V7.4.2", "a closed account's sessions end", behaviour.ends_all),
    Point("V7.4.3", "other sessions can be ended after a factor changed", behaviour.ends_all),
    Point("V7.4.4", "log-out is visible on every page", "show it"),
    Point("V7.4.5", "administrators can end a user's sessions", behaviour.ends_all),
    Point(
        "V7.5.1",
        "re-authentication before sensitive changes",
        "ask again; session.identity says when it was, and by what methods",
    ),
    Point("V7.5.2", "users can see and end their sessions", behaviour.lists),
    Point(
        "V7.5.3", "a further check before highly sensitive acts", "ask; session.identity.methods says by what"
    ),
    Point("V7.6", "lifetimes with an identity provider behave as documented", "test yours"),
    Point("V3.3.1", "Secure, and a prefix", cookies.secure_with_prefix),
    Point("V3.3.2", "SameSite per purpose", cookies.same_site),
    Point("V3.3.3", "__Host- unless shared by design", cookies.host_prefix),
    Point("V3.3.4", "HttpOnly, the token in Set-Cookie only", cookies.http_only),
    Point("V3.3.5", "at most 4,096 bytes", cookies.size),
    # NIST SP 800-63B
    Point("N1", "secrets from an approved generator, made at log-in", behaviour.new_at_log_in),
    Point("N2", "secrets are invalid after log-out and time-out", behaviour.ends_at_log_out),
    Point("N3", "secrets travel over protected channels only", links),
    Point("N4", "secrets do not persist at the client", cookies.not_persistent),
    Point(
        "N5", "no higher assurance than the log-in's", "compare session.identity.methods with what you need"
    ),
    Point("N6", "forms carry an identifier that is verified", behaviour.csrf),
    Point("N7", "log-out is readily accessible", "show it"),
    Point("N8", "the cookie's attributes", cookies.attributes),
    Point("N9", "re-authentication resets both time-outs", behaviour.reset_by_log_in),
    Point("N10", "limits of an assurance level", behaviour.level),
    Point("N12", "monitoring is assessed for privacy", "assess it if you record addresses and agents"),
    # RFC 6265bis
    Point("C1", "Set-Cookie keeps to the grammar", cookies.grammar),
    Point("C2", "no attribute and no cookie twice", cookies.grammar),
    Point("C4", "rules of __Host- and __Secure-", cookies.bad_settings),
    Point("C5", "at most 4,096 bytes and 400 days", cookies.size),
    Point("C6", "SameSite=None only with Secure", cookies.bad_settings),
    Point("C7", "several cookies of one name", cookies.several),
    Point("C8", "Set-Cookie only when it changed", cookies.only_when_changed),
    # The members of a cluster
    Point("M1", "members verify what each other signs", keys),
)


_VERDICTS = {True: Verdict.PASS, False: Verdict.FAIL, None: Verdict.YOURS}


def check(settings: Settings) -> Iterator[Finding]:
    """Check all points; each thing that is tried out has a store of its own."""
    results: dict[Check, Result] = {}
    for point in POINTS:
        if isinstance(point.check, str):
            yield point.finding(Verdict.YOURS, point.check)
            continue
        if point.check not in results:
            with subject(settings) as tried:
                results[point.check] = point.check(tried)
        holds, evidence = results[point.check]
        yield point.finding(_VERDICTS[holds], evidence)
