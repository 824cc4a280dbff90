// Tabs and their panels: one is open; arrows, Home and End move between them, and the address names the open one.

const tabs = [...document.querySelectorAll("[role=tab]")];
const panel = (tab) => document.getElementById(tab.getAttribute("aria-controls"));

export let open = "";

export function show(name) {
  const tab = tabs.find((tab) => panel(tab).id === name) ?? tabs[0];
  open = document.body.dataset.tab = panel(tab).id;
  for (const other of tabs) {
    other.setAttribute("aria-selected", String(other === tab));
    other.tabIndex = other === tab ? 0 : -1;
    panel(other).hidden = other !== tab;
  }
  if (location.hash.slice(1) !== open) history.replaceState(null, "", `#${open}`);
  document.dispatchEvent(new CustomEvent("tab", { detail: open }));
}

export function start() {
  tabs.forEach((tab, index) => {
    const ends = { Home: -index, End: tabs.length - 1 - index };
    const steps = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, ...ends };
    tab.onclick = () => show(panel(tab).id);
    tab.onkeydown = (event) => {
      if (!(event.key in steps)) return;
      event.preventDefault();
      const next = tabs[(index + steps[event.key] + tabs.length) % tabs.length];
      next.focus();
      show(panel(next).id);
    };
  });
  window.onhashchange = () => show(location.hash.slice(1));
  show(location.hash.slice(1));
}
