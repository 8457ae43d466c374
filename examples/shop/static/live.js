// Keeps the card of the node up to date. The page works without it.
const live = document.getElementById("live");

async function refresh() {
  try {
    const answer = await fetch("/card", { signal: AbortSignal.timeout(3000) });
    if (!answer.ok) return;
    live.innerHTML = await answer.text();
    document.body.classList.remove("gone");
    document.body.classList.toggle("cut", live.querySelector("[data-cut]") !== null);
  } catch {
    document.body.classList.add("gone");
  } finally {
    setTimeout(refresh, 1000);
  }
}

if (live) setTimeout(refresh, 1000);
