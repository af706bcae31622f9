// The console works without this file; with it, pages stay live and the keyboard is enough.
"use strict";

(() => {
  const live = document.getElementById("live");
  const state = document.getElementById("state");
  let source = null;

  const say = (text) => {
    if (state && state.textContent !== text) state.textContent = text;
  };

  // What is chosen, open, or has the keyboard stays so when the page is sent again.
  const keyOf = (element) => element && (element.getAttribute("href") || element.getAttribute("value") || element.id);
  const replace = (html) => {
    const chosen = new Set([...live.querySelectorAll("input[type=checkbox]:checked")].map((box) => box.value));
    const current = live.querySelector("[data-row].current a");
    const focused = live.contains(document.activeElement) ? keyOf(document.activeElement) : null;
    const scrolled = [...live.querySelectorAll(".wide")].map((box) => box.scrollLeft);
    live.innerHTML = html;
    live.querySelectorAll("input[type=checkbox]").forEach((box) => { box.checked = chosen.has(box.value); });
    live.querySelectorAll(".wide").forEach((box, place) => { box.scrollLeft = scrolled[place] || 0; });
    rows().forEach((row) => {
      const link = row.querySelector("a");
      if (current && link && link.getAttribute("href") === current.getAttribute("href")) row.classList.add("current");
    });
    if (focused) {
      const again = [...live.querySelectorAll("a, button, input")].find((one) => keyOf(one) === focused);
      if (again) again.focus({ preventScroll: true });
    }
  };

  const open = () => {
    if (!live || source || document.hidden) return;
    source = new EventSource(live.dataset.live);
    source.onopen = () => say("live");
    source.onmessage = (message) => replace(message.data);
    source.addEventListener("ended", () => {
      close();
      location.reload(); // the server sends whoever is not signed in to the sign-in page
    });
    source.onerror = () => {
      say(source.readyState === EventSource.CLOSED ? "not live: load the page again" : "connecting …");
    };
  };
  const close = () => {
    if (source) source.close();
    source = null;
  };

  // A hidden tab costs nothing.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      close();
      say("not live");
    } else {
      open();
    }
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);

  const rows = () => [...document.querySelectorAll("[data-row]")];
  const move = (by) => {
    const all = rows();
    if (!all.length) return;
    const at = all.findIndex((row) => row.classList.contains("current"));
    const next = all[Math.min(Math.max(at + by, 0), all.length - 1)];
    all.forEach((row) => row.classList.toggle("current", row === next));
    const link = next.querySelector("a, summary");
    if (link) link.focus();
    next.scrollIntoView({ block: "nearest" });
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const writing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox";
    if (writing) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "/") {
      const search = document.querySelector("[data-search]");
      if (search) {
        event.preventDefault();
        search.focus();
        search.select();
      }
    } else if (event.key === "j") {
      move(1);
    } else if (event.key === "k") {
      move(-1);
    }
  });

  // Work that is done step by step is sent on by itself; whoever leaves the page stops it.
  const again = document.querySelector("form[data-again]");
  if (again) again.submit();

  open();
})();
