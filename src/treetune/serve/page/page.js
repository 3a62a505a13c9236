"use strict";
// The page of treetune serve. Whatever comes from a model or a person is put in as text, never as markup.

const state = { words: {}, language: "en", key: sessionStorage.getItem("treetune-key") || "", runs: [], tab: "",
  answer: null, row: null, stopping: null, timer: 0 };
const by = (id) => document.getElementById(id);
const say = (name, values = {}) => {
  const text = (state.words[state.language] || {})[name] ?? name;
  return text.replace(/\{(\w+)\}/g, (whole, key) => values[key] ?? whole);
};
const make = (tag, text = "", options = {}) => Object.assign(document.createElement(tag), { textContent: text }, options);

// -- talking to the server

function headers(more = {}) {
  const own = { "accept-language": state.language, ...more };
  if (state.key) own.authorization = `Bearer ${state.key}`;
  return own;
}

async function call(path, body, signal) {
  const asked = body === undefined ? { headers: headers() } : {
    method: "POST", headers: headers({ "content-type": "application/json" }), body: JSON.stringify(body), signal };
  let answer;
  try {
    answer = await fetch(path, asked);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(say("lost"));
  }
  if (answer.status === 401) askForKey();
  if (!answer.ok) throw new Error((await answer.json()).error.message);
  return answer;
}

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").filter((line) => !line.startsWith(":"));
      if (lines.length === 2) yield [lines[0].slice(7), JSON.parse(lines[1].slice(6))];
    }
  }
}

function fault(error) {
  by("fault").textContent = error ? error.message : "";
  by("fault").hidden = !error;
}

function guarded(action) {
  return async (event) => {
    if (event) event.preventDefault();
    fault(null);
    try {
      await action(event);
    } catch (error) {
      if (error.name !== "AbortError") fault(error);
    }
  };
}

function askForKey() {
  by("key-form").hidden = false;
  by("key").focus();
}

// -- language and sections

function translate() {
  document.documentElement.lang = state.language === "zh" ? "zh-Hans" : "en";
  for (const each of document.querySelectorAll("[data-words]")) each.textContent = say(each.dataset.words);
  for (const each of document.querySelectorAll("[data-label]")) each.setAttribute("aria-label", say(each.dataset.label));
  showTabs();
  if (state.tab) select(state.tab);
  if (state.answer) showAnswer(state.answer);
}

const tasks = () => [...new Set(state.runs.map((run) => run.task))];
const panelOf = (tab) => (tasks().includes(tab) ? "ask" : tab);

function showTabs() {
  const all = state.runs.length ? [...tasks(), "review", "load", "api"] : [];
  by("tabs").replaceChildren(...all.map((name) => {
    const tab = make("button", say(name), { type: "button", id: `tab-${name}` });
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", `panel-${panelOf(name)}`);
    tab.addEventListener("click", guarded(() => select(name, true)));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = all[(all.indexOf(name) + step + all.length) % all.length];
      select(next, true);
      by(`tab-${next}`).focus();
    });
    return tab;
  }));
}

function select(name, anew = false) {
  const task = tasks().includes(name);
  if (anew && task && name !== state.tab) {
    if (state.stopping) state.stopping.abort();
    state.answer = null;
    by("result").hidden = true;
  }
  const before = state.tab;
  state.tab = name;
  for (const tab of by("tabs").children) {
    const chosen = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
  }
  for (const panel of document.querySelectorAll("[role=tabpanel]")) {
    panel.hidden = panel.id !== `panel-${panelOf(name)}`;
    if (!panel.hidden) panel.setAttribute("aria-labelledby", `tab-${name}`);
  }
  clearInterval(state.timer);
  if (task) showForm(name, before !== name);
  if (name === "review") guarded(showReviews)();
  if (name === "api") guarded(showRoutes)();
  if (name === "load") {
    guarded(showLoad)();
    state.timer = setInterval(guarded(showLoad), 2000);
  }
}

// -- asking

function showForm(task, empty) {
  const runs = state.runs.filter((run) => run.task === task);
  const chosen = by("run").value;
  by("run").replaceChildren(...runs.map((run) => make("option", run.name, { value: run.name })));
  if (runs.some((run) => run.name === chosen)) by("run").value = chosen;
  by("run").parentElement.hidden = runs.length < 2;
  by("report").hidden = !runOf(by("run").value).report;
  const old = Object.fromEntries([...by("fields").querySelectorAll("[name]")].map((each) => [each.name, each.value]));
  by("fields").replaceChildren(...runs[0].columns.map(({ name, required }) => {
    const box = make("div", "", { className: "field" });
    const long = ["text", "context", "source", "document"].includes(name);
    const input = make(long ? "textarea" : "input", "", { id: `field-${name}`, name, required });
    if (!long) input.type = "text";
    if (!empty) input.value = old[name] ?? "";
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) by("ask").requestSubmit();
    });
    box.append(make("label", say(name), { htmlFor: input.id }), input);
    return box;
  }));
}

const runOf = (name) => state.runs.find((run) => run.name === name);

async function ask() {
  if (state.stopping) state.stopping.abort();
  const stopping = state.stopping = new AbortController();
  const row = {};
  for (const each of by("fields").querySelectorAll("[name]")) if (each.value.trim()) row[each.name] = each.value;
  state.answer = null;
  state.row = row;
  clearAnswer();
  by("stop").hidden = false;
  try {
    const body = { ...row, run: by("run").value, stream: true };
    let written = "";
    for await (const [name, data] of events(await call(`/v1/${state.tab}`, body, stopping.signal))) {
      if (name === "text") by("answer").textContent = written += data.text;
      if (name === "error") throw new Error(data.error.message);
      if (name === "answer") showAnswer(data);
    }
  } finally {
    if (state.stopping === stopping) {
      by("stop").hidden = true;
      state.stopping = null;
      if (!state.answer) by("result").hidden = true;
    }
  }
}

function clearAnswer() {
  by("result").hidden = false;
  by("answer").textContent = say("working");
  for (const id of ["verdict", "guarantee", "words", "explained-note"]) by(id).textContent = "";
  for (const id of ["reasons", "scores"]) by(id).replaceChildren();
  by("kept").hidden = by("explained").hidden = true;
}

function showAnswer(answer) {
  state.answer = answer;
  const { verdict, reasons, flags = [], guarantee, confidence } = answer.decision;
  const text = answer.answer ?? answer.proposal;
  const shown = text === null ? say("nothing") : named(answer.task, text);
  by("answer").textContent = answer.answer === null && text !== null ? `${say("proposal")}: ${shown}` : shown;
  by("verdict").className = `verdict ${verdict}`;
  by("verdict").textContent = say(verdict === "review" ? "review_verdict" : verdict);
  by("reasons").replaceChildren(...[...reasons, ...flags].map((reason) => make("li", sentence(reason))));
  const facts = [];
  if (confidence !== null) facts.push(["confidence", percent(confidence)]);
  else if (answer.scores.probability !== undefined) facts.push(["probability", percent(answer.scores.probability)]);
  for (const [name, value] of Object.entries(answer.scores)) {
    if (name.startsWith("probability:")) facts.push([name.slice(12), percent(value)]);
  }
  by("scores").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", say(name)), make("dd", value)]));
  const notes = [answer.num_cut ? say("cut") : "", answer.finished ? "" : say("unfinished")].filter(Boolean);
  by("guarantee").textContent = [guarantee, ...notes].join(" ");
  by("kept").textContent = say("kept");
  by("kept").hidden = !answer.kept_for_review;
  by("explained").hidden = text === null;
  by("words").replaceChildren();
  by("explained-note").textContent = "";
}

function named(task, text) {
  if (task === "sentiment") return say(text);
  return text === "" ? say("empty_answer") : text;
}

function sentence({ text, value, limit, evidence }) {
  const numbers = value == null ? "" : limit == null ? ` (${round(value)})` : ` (${round(value)} / ${round(limit)})`;
  return text + numbers + (evidence ? `: ${evidence}` : "");
}

const round = (value) => String(Math.round(value * 1000) / 1000);
const percent = (value) => (value === null ? "–" : `${Math.round(value * 1000) / 10} %`);

async function explain() {
  by("explain").disabled = true;
  try {
    const found = await (await call(`/v1/explain`, { run: state.answer.run, row: state.row })).json();
    const most = Math.max(...found.parts.flatMap((part) => part.pieces.map((piece) => Math.abs(piece.value ?? 0))), 1e-9);
    by("words").replaceChildren(...found.parts.flatMap(({ pieces }) => [...pieces, { text: "\n", value: null }]).map(({ text, value }) => {
      const span = make("span", text);
      const share = Math.abs(value ?? 0) / most;
      if (share > 0.02) {
        span.style.backgroundColor = `rgba(var(${value > 0 ? "--for" : "--against"}), ${share * 0.6})`;
        span.title = `${say(value > 0 ? "for" : "against")} (${round(value)})`;
      }
      return span;
    }));
    by("explained-note").textContent = [say("explained"), found.note].filter(Boolean).join(" ");
  } finally {
    by("explain").disabled = false;
  }
}

async function openReport() {
  const { url } = await (await call(`/v1/runs/${encodeURIComponent(by("run").value)}/report-link`, {})).json();
  const link = make("a", "", { href: url, target: "_blank", rel: "noopener" });
  link.click(); // soon enough after the click on the button that no browser blocks it
}

// -- review

async function showReviews() {
  const runs = by("review-run");
  const chosen = runs.value;
  runs.replaceChildren(...state.runs.map((run) => make("option", run.name, { value: run.name })));
  if (chosen) runs.value = chosen;
  runs.parentElement.hidden = state.runs.length < 2;
  const found = await (await call(`/v1/reviews?run=${encodeURIComponent(runs.value)}`)).json();
  by("counts").textContent = say("counts", found);
  const nothing = say(found.gated ? "no_rows" : "no_gate");
  by("queue").replaceChildren(...(found.pending.length ? found.pending.map(card) : [make("p", nothing)]));
}

function card(item) {
  const run = runOf(by("review-run").value);
  const box = make("article", "", { className: "card" });
  for (const [name, value] of Object.entries(item.row)) {
    if (value !== null) box.append(make("h2", say(name)), make("p", value, { className: "source" }));
  }
  const proposal = item.proposal === null ? say("nothing") : named(run.task, item.proposal);
  if (item.audited) box.append(make("p", say("audited"), { className: "small" }));
  box.append(make("p", `${say("proposal")}: ${proposal}`, { className: "verdict" }));
  const why = make("ul");
  why.append(...item.reasons.map((reason) => make("li", sentence(reason))));
  const id = `right-${item.id}`;
  const right = run.labels.length ? make("select", "", { id }) : make("input", "", { id, type: "text" });
  if (run.labels.length) right.append(...run.labels.map((label) => make("option", say(label), { value: label })));
  const field = make("div", "", { className: "field" });
  field.append(make("label", say("right_answer"), { htmlFor: id }), right);
  const buttons = make("div", "", { className: "row" });
  for (const [verdict, word, kind] of [["confirm", "right", ""], ["correct", "correct", "plain"]]) {
    const button = make("button", say(word), { type: "button", className: kind });
    button.disabled = verdict === "confirm" && item.proposal === null;
    button.dataset.verdict = verdict;
    button.addEventListener("click", guarded(() => settle(item.id, run.name, verdict, right.value)));
    buttons.append(button);
  }
  box.append(why, field, buttons);
  return box;
}

async function settle(id, run, verdict, answer) {
  await call(`/v1/reviews/${encodeURIComponent(id)}`, { run, verdict, answer: verdict === "correct" ? answer : "" });
  await showReviews();
  (by("queue").querySelector("button:not(:disabled)") || by("tab-review")).focus();
}

// -- load and routes

async function showLoad() {
  const load = await (await call("/v1/load")).json();
  const seconds = (value) => (value === null ? "–" : say("seconds", { value }));
  const facts = [["waiting_rows", load.waiting_rows], ["running_rows", load.running_rows],
    ["open_requests", load.open_requests], ["seconds_per_row", seconds(load.seconds_per_row)],
    ...["p50", "p95", "p99"].map((name) => [name, seconds(load.latency[name])])];
  by("load").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", say(name)), make("dd", String(value))]));
  by("fill").value = load.waiting_rows / load.queue_rows;
}

async function showRoutes() {
  const schema = await (await call("/openapi.json")).json();
  by("routes").replaceChildren(...Object.entries(schema.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { summary, requestBody }]) => {
      const box = make("details", "", { className: "card" });
      const head = make("summary");
      head.append(make("code", `${method.toUpperCase()} ${path}`));
      box.append(head, make("p", summary || ""));
      const reference = requestBody?.content["application/json"]?.schema?.$ref;
      const fields = reference ? schema.components.schemas[reference.split("/").pop()] : null;
      if (fields) {
        const list = make("ul");
        list.append(...Object.entries(fields.properties).map(([name, field]) => {
          const item = make("li");
          item.append(make("code", name), (fields.required || []).includes(name) ? " * " : " ", field.description || "");
          return item;
        }));
        box.append(list);
      }
      return box;
    })));
}

// -- start

async function start() {
  state.words = await (await fetch("/page/words.json")).json();
  const kept = localStorage.getItem("treetune-language");
  state.language = kept || (navigator.language.startsWith("zh") ? "zh" : "en");
  by("language").value = state.language;
  translate();
  await open();
}

async function open() {
  state.runs = (await (await call("/v1/runs")).json()).runs;
  by("key-form").hidden = true;
  translate();
  if (!state.runs.length) throw new Error(say("no_runs"));
  select(tasks()[0], true);
}

by("language").addEventListener("change", guarded(async () => {
  state.language = by("language").value;
  localStorage.setItem("treetune-language", state.language);
  translate();
}));
by("key-form").addEventListener("submit", guarded(async () => {
  state.key = by("key").value.trim();
  sessionStorage.setItem("treetune-key", state.key);
  await open();
}));
by("ask").addEventListener("submit", guarded(ask));
by("stop").addEventListener("click", () => state.stopping?.abort());
by("report").addEventListener("click", guarded(openReport));
by("explain").addEventListener("click", guarded(explain));
by("run").addEventListener("change", () => { by("report").hidden = !runOf(by("run").value).report; });
by("review-run").addEventListener("change", guarded(showReviews));
guarded(start)();
