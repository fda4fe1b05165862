"use strict";

// Shows what the server says is to be seen, and sends back what a person does. What it puts into the
// page as HTML was made and escaped by the server; all else goes in as text.

const el = (id) => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)");
const shown = new Map();
let heardStatus = "";
let movedByHand = 0;

/** Put HTML into an element if it is not there yet; says whether it was new. */
function put(element, html) {
  if (shown.get(element) === html) return false;
  shown.set(element, html);
  element.innerHTML = html;
  return true;
}

async function send(what, given) {
  try {
    const answer = await fetch(what, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(given),
    });
    return (await answer.json()).said;
  } catch {
    return "The play does not answer any more.";
  }
}

function ask(words) {
  const dialog = el("confirm");
  el("confirm-title").textContent = words.title;
  el("confirm-text").textContent = words.text;
  el("confirm-yes").textContent = words.confirm;
  el("confirm-no").textContent = words.deny;
  dialog.returnValue = "no";
  dialog.showModal();
  el("confirm-no").focus();
  return new Promise((answered) => {
    dialog.addEventListener("close", () => answered(dialog.returnValue === "yes"), { once: true });
  });
}

async function pressed(button) {
  const { ts, action, title } = button.dataset;
  const dataset = { ...button.dataset };
  if (title && !(await ask(dataset))) return;
  el("done").textContent = "";
  const said = await send("click", { ts, action, user: el("me").value });
  if (said) el("done").textContent = said;
}

function showMessages(messages) {
  const list = el("messages");
  el("silence").hidden = messages.length > 0;
  for (const message of messages) {
    let item = list.querySelector(`[data-id="${message.id}"]`);
    if (!item) {
      item = document.createElement("li");
      item.dataset.id = message.id;
      item.className = `message ${message.root ? "root" : "reply"}${message.only ? " only" : ""}`;
      item.innerHTML = '<div class="face" aria-hidden="true">R</div><div><p class="by"></p><div class="body"></div></div>';
      list.append(item);
    }
    const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 19);
    const name = document.createElement("strong");
    name.textContent = message.by;
    let when = ` ${clock(message.at)}`;
    if (message.edited) when += `, edited ${clock(message.edited)}`;
    if (message.only) when = ` · only ${message.only} sees this`;
    item.querySelector(".by").replaceChildren(name, when);
    const body = item.querySelector(".body");
    const focused = body.contains(document.activeElement) && document.activeElement.dataset.action;
    if (put(body, message.html) && focused) {
      const again = body.querySelector(`[data-action="${CSS.escape(focused)}"]`);
      (again || el("slack")).focus();
    }
  }
}

function showTroubles(troubles) {
  const box = el("troubles");
  if (!troubles.length) return box.querySelectorAll("button").forEach((b) => (b.disabled = true));
  for (const trouble of troubles) {
    let button = box.querySelector(`[data-id="${trouble.id}"]`);
    if (!button) {
      box.querySelectorAll(".note").forEach((note) => note.remove());
      button = document.createElement("button");
      button.type = "button";
      button.dataset.id = trouble.id;
      button.title = trouble.says;
      button.textContent = trouble.label;
      button.addEventListener("click", async () => {
        el("done").textContent = await send("trouble", { id: trouble.id });
      });
      box.append(button);
    }
    if (trouble.toggle) button.setAttribute("aria-pressed", String(trouble.on));
    if (trouble.failed) button.title = trouble.failed;
    button.setAttribute("aria-disabled", String(trouble.busy));
  }
}

function showPeople(people) {
  const select = el("me");
  if (select.options.length) return;
  for (const [id, name] of Object.entries(people)) select.add(new Option(name, id));
}

/** Keep the state that the run is in before the reader's eyes, unless they look elsewhere. */
function follow() {
  const pane = el("machine");
  const here = pane.querySelector(".rb-current") || [...pane.querySelectorAll(".rb-failed, .rb-done")].at(-1);
  if (!here || Date.now() - movedByHand < 6000) return;
  const box = here.getBoundingClientRect();
  const view = pane.getBoundingClientRect();
  pane.scrollTo({
    top: pane.scrollTop + box.top - view.top - (view.height - box.height) / 2,
    left: pane.scrollLeft + box.left - view.left - (view.width - box.width) / 2,
    behavior: still.matches ? "auto" : "smooth",
  });
}

function show(state) {
  el("word").textContent = state.status.word;
  el("word").className = `pill ${state.status.kind}`;
  el("text").textContent = state.status.text;
  if (heardStatus !== state.status.word) el("alert").textContent = `${state.status.word}: ${state.status.text}`;
  heardStatus = state.status.word;
  el("ended").hidden = !state.ended;
  if (el("ended").textContent !== state.ended) el("ended").textContent = state.ended;
  put(el("facts"), state.facts);
  if (put(el("machine"), state.machine)) follow();
  if (state.plots.length) put(el("plots"), state.plots.join(""));
  if (state.pagerduty) put(el("pagerduty"), state.pagerduty);
  showPeople(state.people);
  showMessages(state.messages);
  showTroubles(state.troubles);
  if (state.gone) document.querySelectorAll("#troubles button, .slack-button").forEach((b) => (b.disabled = true));
}

async function watch() {
  let version = 0;
  let missed = 0;
  while (missed < 3) {
    try {
      const answer = await fetch(`state?after=${version}&width=${el("plots").clientWidth}`);
      const state = await answer.json();
      version = state.version;
      missed = 0;
      show(state);
      if (state.gone) return;
    } catch {
      missed += 1;
      await new Promise((later) => setTimeout(later, 500));
    }
  }
  el("ended").hidden = false;
  el("ended").textContent = "The play does not answer any more. This page stays as it was.";
  document.querySelectorAll("#troubles button, .slack-button").forEach((b) => (b.disabled = true));
}

el("messages").addEventListener("click", (event) => {
  const button = event.target.closest(".slack-button");
  if (button) pressed(button);
});
for (const kind of ["wheel", "touchmove", "keydown"]) {
  el("machine").addEventListener(kind, () => (movedByHand = Date.now()), { passive: true });
}
watch();
