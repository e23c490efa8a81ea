// Filters, search, links to findings and copying. The page is complete without: what is here only hides, opens and copies.
"use strict";
(() => {
  const form = document.getElementById("filters");
  const said = document.getElementById("said");
  const findings = [...document.querySelectorAll("details.finding")];
  const say = (text) => { said.textContent = text; };

  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = false;
  }
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button.copy");
    if (!button) return;
    const script = button.closest(".again").querySelector(".script");
    const code = script.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      script.open = true;
      getSelection().selectAllChildren(code);
      if (!document.execCommand("copy")) {
        say("Not copied: the text is selected, copy it by hand.");
        return;
      }
    }
    say("Copied.");
    const label = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 1500);
  });

  // The bodies of all but the first findings are text, escaped when it was written, until somebody opens them. No body holds an <hr>.
  const DETAILED = document.querySelectorAll("details.finding > .body").length;
  let bodies = null;
  function unfold(one) {
    if (one.childElementCount > 1) return;
    bodies ??= document.getElementById("bodies").textContent.split("<hr>");
    one.insertAdjacentHTML("beforeend", bodies[findings.indexOf(one) - DETAILED]);
  }
  document.addEventListener("toggle", (event) => {
    if (event.target.open && event.target.matches(".finding")) unfold(event.target);
  }, true);

  const PRINTED = 100; // findings opened for a printout; of more, only those that are open
  let opened = [];
  addEventListener("beforeprint", () => {
    const shown = [...document.querySelectorAll("details.finding:not([hidden])")];
    const every = shown.length > PRINTED ? shown.filter((one) => one.open) : shown;
    every.forEach(unfold);
    opened = every.flatMap((one) => [one, ...one.querySelectorAll("details.script")]).filter((one) => !one.open);
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of opened) one.open = false;
    opened = [];
  });

  if (!form) return;
  const NAMES = ["q", "verdict", "adapter", "precision", "layer", "tensor"];
  const SELECTS = NAMES.slice(1);
  const groups = [...document.querySelectorAll("section.group")];
  const facts = findings.map((one) => SELECTS.map((name) => one.dataset[name]));
  const state = findings.map(() => true);
  const shown = document.getElementById("shown");
  let words = null; // read when something is searched for, since that takes a moment on a page of thousands

  const count = (n) => `${n.toLocaleString("en")} finding${n === 1 ? "" : "s"}`;

  function apply() {
    const wanted = SELECTS.map((name) => form.elements[name].value);
    const parts = form.elements.q.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (parts.length && !words) {
      words = findings.map((one) => one.firstElementChild.textContent.replace(/\s+/g, " ").toLowerCase());
    }
    let matching = 0;
    findings.forEach((one, at) => {
      const match = wanted.every((value, i) => !value || facts[at][i] === value) && parts.every((part) => words[at].includes(part));
      matching += match;
      if (match !== state[at]) {
        state[at] = match;
        one.hidden = !match;
      }
    });
    for (const group of groups) {
      group.hidden = !group.querySelector("details.finding:not([hidden])");
    }
    shown.textContent = matching === findings.length ? count(matching) : `${count(matching)} of ${findings.length.toLocaleString("en")} shown`;
  }

  function remember() {
    const given = new URLSearchParams();
    for (const name of NAMES) {
      const value = form.elements[name].value.trim();
      if (value) given.set(name, value);
    }
    const text = given.toString();
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  }

  // The fragment holds either the filters or the name of one finding, which is opened.
  function recall() {
    const text = location.hash.slice(1);
    const set = (given) => {
      for (const name of NAMES) {
        form.elements[name].value = given.get(name) ?? "";
      }
      apply();
    };
    if (text.includes("=")) {
      set(new URLSearchParams(text));
      return true;
    }
    const one = text && document.getElementById(text);
    if (one && one.matches("details.finding")) {
      if (one.hidden) set(new URLSearchParams());
      one.open = true;
      one.scrollIntoView();
      one.firstElementChild.focus({ preventScroll: true });
    }
    return false;
  }

  form.hidden = false;
  form.addEventListener("input", () => { apply(); remember(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { apply(); remember(); }));
  document.getElementById("open").addEventListener("click", () => {
    const every = findings.filter((one, at) => state[at]);
    const few = every.slice(0, PRINTED);
    for (const one of few) one.open = true;
    say(every.length > few.length ? `Opened the first ${few.length} findings of ${every.length}.` : `Opened ${count(few.length)}.`);
  });
  addEventListener("hashchange", () => {
    if (recall()) document.getElementById("findings").scrollIntoView();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const field = event.target.matches("input, select, textarea");
    if (event.key === "/" && !field) {
      event.preventDefault();
      form.elements.q.focus();
      form.elements.q.select();
    } else if (event.key === "Escape" && event.target === form.elements.q) {
      form.elements.q.value = "";
      apply();
      remember();
    }
  });
  recall();
  addEventListener("load", recall); // the browser's own jump to the fragment, which comes before, takes the focus away
})();
