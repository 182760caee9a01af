(() => {
  const moving = document.getElementById("moving");
  const ws = location.origin.replace(/^http/, "ws");
  for (const node of document.querySelectorAll("[data-url]"))
    node.textContent = { ws, origin: ws, http: location.origin }[node.dataset.url] + node.textContent;
  const refresh = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch("/status.html" + location.search);
      if (!answer.ok) throw new Error(answer.status);
      moving.innerHTML = await answer.text();
      moving.classList.remove("stale");
    } catch { moving.classList.add("stale"); }
  };
  setInterval(refresh, 2000);
  document.addEventListener("visibilitychange", refresh);
})();
