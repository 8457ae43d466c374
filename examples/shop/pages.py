"""The shop's pages as text. Everything that does not stand here in so many words goes through `text`."""

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from urllib.parse import urlsplit

from settings import Settings

from canister import MemberState, SessionInfo
from canister.agent.control import AgentStatus

ARTICLES = {
    "tea": ("Green tea, 100 g", 490),
    "coffee": ("Coffee beans, 500 g", 1150),
    "honey": ("Heather honey", 780),
    "bread": ("Rye bread", 420),
    "cheese": ("Mountain cheese, 250 g", 690),
}
"""Names and prices in cents."""


@dataclass(frozen=True)
class Place:
    """Who answers, and under which address the browser came."""

    settings: Settings
    url: str

    def url_of(self, node: int) -> str:
        """Return the same page on another node: the same host name, so that the cookie goes along."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}:{self.settings.ports[node - 1]}/"


@dataclass(frozen=True)
class Visit:
    """The visitor's session as this node has it."""

    handle: str | None
    name: str | None
    cart: dict[str, int]
    info: SessionInfo | None
    ends: datetime | None


def text(value: object) -> str:
    return escape(str(value))


def home(place: Place, visit: Visit, status: AgentStatus | None, sessions: int) -> str:
    body = f"""
      <main>
        <div>{_account(visit)}{_articles()}{_cart(visit)}{_session(visit)}</div>
        <div>{_node(place, status, sessions)}{_things_to_try(place)}</div>
      </main>"""
    return _page(place, body, is_cut=status is not None and status.isolated)


def plain(place: Place, title: str, *paragraphs: str, is_cut: bool = False, extra: str = "") -> str:
    """Return a page with nothing but some text; *extra* is markup."""
    lines = "".join(f"<p>{text(paragraph)}</p>" for paragraph in paragraphs)
    home_link = '<p><a href="/">To the shop</a></p>'
    body = f'<main class="plain"><section><h2>{text(title)}</h2>{lines}{extra}{home_link}</section></main>'
    return _page(place, body, is_cut=is_cut)


def card(settings: Settings, status: AgentStatus | None, sessions: int) -> str:
    """Return the part of the node's card that live.js fetches anew."""
    title = f"<h2>{_badge(settings.node)} answers</h2>"
    if status is None:
        return f"{title}<p>The agent of this node does not answer; it starts again by itself.</p>"
    flag = '<span class="flag">linked</span>'
    if status.isolated:
        flag = '<span class="flag cut" data-cut>cut off</span>'
    members = "".join(_member(settings, member) for member in status.members)
    return f"""{flag}{title}
      <table>
        <tr><th>Member</th><th>State</th><th class="number">Lag</th><th class="number">Address</th></tr>
        {members}
      </table>
      <hr>
      <dl>
        <dt>Process</dt><dd class="mono">{text(status.pid)}</dd>
        <dt>Sessions here</dt><dd><a href="/sessions">{text(sessions)}</a></dd>
        <dt>Digest</dt><dd title="{text(status.digest)}">{_digest(status.digest)}</dd>
      </dl>
      <small>Nodes that hold the same show the same digest.</small>"""


def cut_or_heal(*, is_cut: bool) -> str:
    if is_cut:
        return '<form method="post" action="/heal"><button class="main">Heal: link it again</button></form>'
    return '<form method="post" action="/cut"><button class="cut">Cut this node off</button></form>'


def _page(place: Place, body: str, *, is_cut: bool) -> str:
    node = place.settings.node
    others = [n for n in range(1, len(place.settings.ports) + 1) if n != node]
    links = " or ".join(f'<a href="{text(place.url_of(n))}">node {n}</a>' for n in others)
    tabs = "".join(_tab(place, n) for n in range(1, len(place.settings.ports) + 1))
    return f"""<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>Node {node} - Canister shop</title>
    <link rel="icon" href="data:,">
    <link rel="stylesheet" href="/static/style.css">
    <script src="/static/live.js" defer></script>
  </head>
  <body class="node-{node}{" cut" if is_cut else ""}">
    <header><div>
      <div>
        <h1>The Canister shop</h1>
        <p class="soft">one shop, one session, three nodes</p>
      </div>
      <nav aria-label="Nodes">{tabs}</nav>
    </div></header>
    <p class="notice cut">
      Node {node} is cut off from the others. It goes on by itself; healing merges both sides.
    </p>
    <p class="notice gone">Node {node} does not answer any more. Go on at {links}.</p>
    {body}
  </body>
</html>
"""


def _tab(place: Place, node: int) -> str:
    here = node == place.settings.node
    label = "you are here" if here else f"see this page on node {node}"
    current = ' aria-current="page"' if here else ""
    return f"""<a class="node-{node}" href="{text(place.url_of(node))}"{current}>Node {node}
      <small>{label}</small></a>"""


def _account(visit: Visit) -> str:
    if visit.name is not None:
        return f"""<section class="bar">
          <span>Logged in as <strong>{text(visit.name)}</strong></span>
          <form method="post" action="/logout"><button>Log out</button></form>
        </section>"""
    return """<section>
      <h2>Log in</h2>
      <small>Any name will do. The session gets a new id, and keeps its cart.</small>
      <form class="line" method="post" action="/login">
        <input name="name" aria-label="Your name" placeholder="Your name" required maxlength="40"
          autocomplete="off">
        <button class="main">Log in</button>
      </form>
    </section>"""


def _articles() -> str:
    rows = "".join(
        f"""<tr><td>{text(name)}</td><td class="number">{_money(price)}</td>
        <td class="action">{_button("/cart/add", sku, "Add", "main small")}</td></tr>"""
        for sku, (name, price) in ARTICLES.items()
    )
    return f"<section><h2>Articles</h2><table>{rows}</table></section>"


def _cart(visit: Visit) -> str:
    lines = [(sku, *article, visit.cart[sku]) for sku, article in ARTICLES.items() if sku in visit.cart]
    if not lines:
        return """<section><h2>Your cart</h2>
          <p class="soft">Empty. Add an article, here or on any node.</p></section>"""
    rows = "".join(
        f"""<tr><td>{text(count)} &times; {text(name)}</td><td class="number">{_money(count * price)}</td>
        <td class="action">{_button("/cart/remove", sku, "Remove", "small")}</td></tr>"""
        for sku, name, price, count in lines
    )
    total = _money(sum(count * price for _, _, price, count in lines))
    return f"""<section><h2>Your cart</h2><table>{rows}
      <tr class="total"><td>Total</td><td class="number">{total}</td><td></td></tr></table></section>"""


def _node(place: Place, status: AgentStatus | None, sessions: int) -> str:
    command, data = place.settings.command, str(place.settings.data)
    lines = [shlex.join([command, verb, data]) for verb in ("cut", "heal", "status")]
    commands = "".join(f"<code>{text(line)}</code>" for line in lines)
    is_cut = status is not None and status.isolated
    return f"""<section>
      <div id="live">{card(place.settings, status, sessions)}</div>
      <hr>
      {cut_or_heal(is_cut=is_cut)}
      <div class="commands"><small>The same from a terminal, and the state:</small>{commands}</div>
    </section>"""


def _member(settings: Settings, member: MemberState) -> str:
    number = settings.number_of(member.address)
    label = {"self": "this node", "down": "not linked"}.get(member.state, member.state)
    lag = "&ndash;" if member.lag is None else f"{member.lag * 1000:.0f} ms"
    name = _badge(number) if number else "unknown"
    return f"""<tr><td>{name}</td>
      <td><span class="state {text(member.state)}">{text(label)}</span></td>
      <td class="number">{lag}</td><td class="number mono">{text(member.address)}</td></tr>"""


def _session(visit: Visit) -> str:
    if visit.handle is None or visit.info is None:
        return """<section><h2>Your session</h2>
          <p class="soft">None yet. It begins with a log-in or the first article; looking around stores
          nothing.</p>
        </section>"""
    info = visit.info
    rows = [
        ("Created", info.created),
        ("Last access", info.accessed),
        ("Last write", info.updated),
        ("Ends", visit.ends),
    ]
    times = "".join(f"<dt>{label}</dt><dd>{_time(when)}</dd>" for label, when in rows if when is not None)
    return f"""<section><h2>Your session</h2>
      <dl><dt>Handle</dt><dd><code>{text(visit.handle)}</code></dd>{times}</dl>
      <small>The handle names the session in logs and commands; it opens nothing. Times are in UTC, as of
      when this page was made.</small>
    </section>"""


def _things_to_try(place: Place) -> str:
    node = place.settings.node
    other = node % len(place.settings.ports) + 1
    third = other % len(place.settings.ports) + 1
    return f"""<section><h2>Things to try</h2>
      <ol>
        <li>Log in here, add something on {_badge(other)}, see it on {_badge(third)}.</li>
        <li>Type <code>kill {node}</code> in the terminal of the demo, which ends the process of this page
          with <code>kill -9</code>. Go on at {_badge(other)}. <code>start {node}</code> brings it back.</li>
        <li>Cut {_badge(third)} off. Add one article there and another one here, and look at both carts and
          digests. Heal it: both articles are on every node. Of <em>one</em> article changed on both sides,
          the later count stays.</li>
        <li>Log out on one node: you are logged out on all.</li>
      </ol>
    </section>"""


def _badge(node: int) -> str:
    return f'<span class="badge node-{node}">Node {node}</span>'


def _button(action: str, sku: str, label: str, style: str) -> str:
    return f"""<form method="post" action="{action}"><input type="hidden" name="sku" value="{text(sku)}">
      <button class="{style}">{label}</button></form>"""


def _digest(digest: str) -> str:
    """Return the beginning of a digest in hex, and as colours, which are easier to compare."""
    if not digest.strip("0"):
        return '<span class="soft">nothing stored yet</span>'
    colours = [text(digest[at : at + 6]) for at in range(0, 30, 6)]
    squares = "".join(
        f'<rect x="{x * 13}" width="11" height="13" rx="2" fill="#{c}"/>' for x, c in enumerate(colours)
    )
    svg = f'<svg width="63" height="13" aria-hidden="true">{squares}</svg>'
    return f"{svg}<code>{text(digest[:16])}</code>"


def _money(cents: int) -> str:
    return f"{cents / 100:.2f}"


def _time(when: datetime) -> str:
    away = when - datetime.now(UTC)
    relative = f"in {_span(away)}" if away > timedelta(0) else f"{_span(-away)} ago"
    return f'{when:%H:%M:%S} <span class="soft">{relative}</span>'


def _span(span: timedelta) -> str:
    minutes, seconds = divmod(int(span.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    )
