"use strict";
// The page is whole without this script. With it, a view asks for itself again when the server says that
// something changed, and only what differs is put in place: focus, open folds and selections stay.
(() => {
  const live = document.getElementById("live");
  const button = document.getElementById("live-button");
  const word = document.getElementById("live-word");
  const announce = document.getElementById("announce");
  const ANNOUNCE_MS = 10000; // a screen reader is told at most this often
  const kinds = new Set((live.dataset.on || "").split(" "));
  let source = null;
  let isPaused = false;
  let isBusy = false;
  let isStale = false;
  let arrived = 0;
  let announcedAt = 0;
  let announceTimer = 0;

  const isSame = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.id || "") === (b.id || "");

  function morphAttributes(from, to) {
    for (const { name } of [...from.attributes]) {
      const isState = name === "open" && from.nodeName === "DETAILS";
      if (!to.hasAttribute(name) && !isState) from.removeAttribute(name);
    }
    for (const { name, value } of to.attributes) {
      const isState = name === "open" && from.nodeName === "DETAILS";
      if (!isState && from.getAttribute(name) !== value) from.setAttribute(name, value);
    }
  }

  function morph(from, to) {
    if (from.isEqualNode(to)) return;
    if (from.nodeType !== Node.ELEMENT_NODE) {
      from.nodeValue = to.nodeValue;
      return;
    }
    if (from.hasAttribute("data-keep") && isEdited(from)) return; // somebody is filling it in
    morphAttributes(from, to);
    const byId = new Map();
    for (const child of from.children) if (child.id) byId.set(child.id, child);
    let at = from.firstChild;
    for (const wanted of [...to.childNodes]) {
      let found = wanted.id ? byId.get(wanted.id) : null;
      if (!found && at && isSame(at, wanted) && !at.id) found = at;
      if (found && isSame(found, wanted)) {
        if (found === at) at = at.nextSibling;
        else from.insertBefore(found, at);
        morph(found, wanted);
      } else {
        const made = document.importNode(wanted, true);
        if (from.dataset.list && made.nodeName === "TR") {
          made.classList.add("fresh");
          arrived += 1;
        }
        from.insertBefore(made, at);
      }
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  function isEdited(form) {
    if (form.contains(document.activeElement)) return true;
    return [...form.querySelectorAll("input")].some((input) => input.value !== input.defaultValue);
  }

  function tell() {
    if (!arrived) return;
    const wait = announcedAt + ANNOUNCE_MS - Date.now();
    if (wait > 0) {
      if (!announceTimer) announceTimer = setTimeout(() => { announceTimer = 0; tell(); }, wait);
      return;
    }
    const list = document.querySelector("[data-list]");
    announce.textContent = `${arrived} new ${list ? list.dataset.list : "rows"}`;
    announcedAt = Date.now();
    arrived = 0;
  }

  async function refresh() {
    if (isPaused || document.hidden) {
      isStale = true;
      return;
    }
    if (isBusy) {
      isStale = true;
      return;
    }
    isBusy = true;
    isStale = false;
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      const text = await answer.text();
      const there = new DOMParser().parseFromString(text, "text/html").getElementById("live");
      if (there && !isPaused) {
        morph(live, there);
        tell();
      }
    } catch {
      show("lost"); // the event stream says when the server is back
    } finally {
      isBusy = false;
    }
    if (isStale) setTimeout(refresh, 50);
  }

  function show(state) {
    button.dataset.state = state;
    button.setAttribute("aria-pressed", String(!isPaused));
    word.textContent = { live: "Live", paused: "Paused", lost: "Not connected" }[state];
  }

  function listen() {
    if (source || isPaused || document.hidden) return;
    source = new EventSource("/ui/events");
    source.addEventListener("open", () => show("live"));
    source.addEventListener("error", () => show("lost"));
    for (const kind of kinds) source.addEventListener(kind, refresh);
  }

  function hush() {
    if (source) source.close();
    source = null;
  }

  button.hidden = false;
  button.addEventListener("click", () => {
    isPaused = !isPaused;
    if (isPaused) {
      hush();
      show("paused");
    } else {
      listen();
      refresh();
      show("live");
    }
  });
  // A browser opens six connections to one server: tabs that nobody sees give theirs back.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) hush();
    else {
      listen();
      if (!isPaused) refresh();
    }
  });
  window.addEventListener("pagehide", hush);

  // Addresses without what was left empty.
  for (const form of document.querySelectorAll("form[method=get]")) {
    form.addEventListener("formdata", (event) => {
      for (const [name, value] of [...event.formData]) {
        if (value === "" || (name === "sort" && value === "newest")) event.formData.delete(name);
      }
    });
  }

  // "/" goes to the search, as in most tools; not while something is being typed.
  document.addEventListener("keydown", (event) => {
    const target = event.target;
    const isTyping = target instanceof HTMLInputElement || target instanceof HTMLSelectElement;
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const search = document.getElementById("q");
      if (search) {
        event.preventDefault();
        search.focus();
        search.select();
      }
    }
  });

  show("live");
  listen();
})();
