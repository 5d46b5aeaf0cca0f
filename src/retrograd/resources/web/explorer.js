"use strict";
// The explorer: it asks the service that it came from, and nobody else. Text from data becomes text nodes, never HTML.

const state = { token: "", runs: [], feedback: false, watched: null, turns: [], offset: 0, curves: { next: 0, points: [], alarms: 0 } };
const byId = (id) => document.getElementById(id);

function element(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// ---- requests -------------------------------------------------------------------------------------------------------

async function ask(path, body) {
  const headers = state.token ? { authorization: `Bearer ${state.token}` } : {};
  const options = body === undefined ? { headers } : { method: "POST", headers: { ...headers, "content-type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, options);
  if (response.status === 401) { showToken(); throw new Error("The service asks for its token."); }
  const record = await response.json();
  if (!response.ok) throw new Error(record.error.message);
  return record;
}

function tell(error) {
  byId("problem").textContent = error ? error.message : "";
  byId("problem").hidden = !error;
}

// Of several requests for one part of the page the last one sent is shown, whichever is answered last.
const latest = {};

async function askLatest(part, work) {
  const own = latest[part] = (latest[part] || 0) + 1;
  const result = await work();
  return own === latest[part] ? result : null;
}

async function attempt(work, button) {
  tell(null);
  if (button) button.disabled = true;
  try { return await work(); } catch (error) { tell(error); return null; } finally { if (button) button.disabled = false; }
}

// ---- views ----------------------------------------------------------------------------------------------------------

const VIEWS = { ask: "Ask", examples: "Test examples", weights: "Weights", curves: "Training" };

function show(view) {
  for (const name of ["token", ...Object.keys(VIEWS)]) byId(`view-${name}`).hidden = name !== view;
  for (const button of byId("views").children) button.setAttribute("aria-pressed", String(button.dataset.view === view));
}

function showToken() { byId("views").replaceChildren(); show("token"); byId("token").focus(); }

function showViews() {
  const shown = Object.keys(VIEWS).filter((name) => (name === "curves" ? state.watched : name === "examples" ? state.runs.some((run) => run.test_examples) : state.runs.length));
  byId("views").replaceChildren(...shown.map((name) => element("button", { type: "button", "data-view": name, onclick: () => open(name) }, VIEWS[name])));
  open(shown[0] || "ask");
}

function open(view) {
  show(view);
  if (view === "curves") drawCurves();
  if (view === "examples" && !byId("examples").children.length) attempt(() => loadExamples(0));
}

async function begin() {
  const record = await ask("/api/runs");
  Object.assign(state, record);
  byId("served").textContent = state.runs.map((run) => run.name).join(" beside ") || `watching ${state.watched}`;
  for (const id of ["examples-run", "weights-run"]) {
    byId(id).replaceChildren(...state.runs.map((run) => element("option", { value: run.name }, run.name)));
    byId(`${id}-label`).hidden = state.runs.length < 2;
  }
  if (state.runs.length) describeForm();
  showViews();
  if (state.watched && !state.isWatching) watch();
}

// ---- ask ------------------------------------------------------------------------------------------------------------

const FORMS = {
  "question": ["Question", "A question, as a person would ask it."],
  "marked sentence": ["Sentence with two marked entities", "Mark the first entity as <e1>…</e1> and the second as <e2>…</e2>, as in: The <e1>cup</e1> holds <e2>tea</e2>."],
  "dialogue": ["Your turn", "The turns so far are read, too. After an answer go on with the next turn, or begin anew."],
};

function describeForm() {
  const [label, help] = FORMS[state.runs[0].form];
  byId("query-label").textContent = label;
  byId("query-help").textContent = help;
  byId("ask-example").hidden = !state.runs[0].example && state.runs[0].form !== "marked sentence";
  byId("k").value = state.runs[0].read;
}

const isDialogue = () => state.runs[0].form === "dialogue";

function turnsOf(text) {
  return text.split("\n").filter((line) => line.trim()).map((line) => {
    const found = /^(user|agent):\s*(.*)$/.exec(line);
    return found ? { role: found[1], text: found[2] } : { role: "user", text: line };
  });
}

function currentQuery() {
  const text = byId("query").value;
  return isDialogue() ? { turns: [...state.turns, ...turnsOf(text)] } : { query: text };
}

function textOf(query) { return query.query || query.turns.map((turn) => turn.text).join(" "); }

async function askRuns(onlySearch) {
  const query = currentQuery(), k = Number(byId("k").value);
  const parts = await askLatest("results", () => Promise.all(state.runs.map((run) => askRun(run, query, k, onlySearch))));
  if (!parts) return;
  byId("results").className = state.runs.length > 1 ? "columns two" : "columns";
  byId("results").replaceChildren(...parts);
}

async function askRun(run, query, k, onlySearch) {
  const heading = element("h3", {}, run.name);
  try {
    const record = await ask(onlySearch ? "/api/search" : "/api/answer", { ...query, k: onlySearch ? Math.max(1, k) : k, run: run.name });
    return onlySearch ? element("section", {}, heading, passageList(run, record, query, null)) : answerColumn(run, heading, record, query);
  } catch (error) {
    return element("section", {}, heading, element("p", { class: "problem" }, error.message));
  }
}

function answerColumn(run, heading, record, query) {
  const marks = new Map();
  const said = record.relation || record.answer || "(empty)";
  const cited = record.passages.map((one, place) => [one, place]).filter(([one]) => (one.responsibility || 0) >= 0.05).slice(0, 3);
  const links = cited.map(([one, place]) => element("a", { class: "cite", href: `#${anchor(run, place)}`, title: `p(z|x,y) ${percent(one.responsibility)}` }, `${place + 1}`));
  const box = element("div", { class: "answer" },
    element("p", { class: "said" }, said, ...links),
    record.relation && record.answer !== record.relation ? element("p", { class: "quiet" }, record.answer) : null,
    record.withheld ? element("p", { class: "quiet" }, `withheld, as too unsure: ${record.withheld}`) : null,
    element("p", { class: "quiet small" }, `confidence ${percent(record.confidence)}, a ${record.confidence_is}`),
    state.feedback ? verdictForm(run, record, query, marks) : null,
    isDialogue() ? element("button", { type: "button", class: "mini", onclick: () => goOn(query, record.answer) }, "Go on with this answer") : null);
  return element("section", {}, heading, box, passageList(run, record, query, state.feedback ? marks : null));
}

function goOn(query, answer) {
  state.turns = [...query.turns, { role: "agent", text: answer }];
  showTurns();
  byId("query").value = "";
  byId("query").focus();
}

function showTurns() {
  byId("turns").replaceChildren(...state.turns.map((turn) => element("li", { class: turn.role }, element("span", { class: "quiet small" }, `${turn.role}: `), turn.text)));
  byId("turns").hidden = byId("ask-over").hidden = !state.turns.length;
}

const anchor = (run, place) => `passage-${state.runs.indexOf(run)}-${place}`;
const percent = (share) => (share === null || share === undefined ? "" : share >= 0.0005 || share === 0 ? `${(100 * share).toFixed(1)} %` : share.toExponential(1));

function passageList(run, record, query, marks) {
  const answer = record.answer || "";
  const items = record.passages.map((one, place) => element("li", { class: "passage", id: anchor(run, place) },
    element("h4", {}, element("span", {}, `${place + 1}. ${one.title || one.id}`), element("span", { class: "quiet small" }, one.title ? one.id : "")),
    shares(one),
    element("p", {}, ...marked(one.text, textOf(query), answer, run)),
    marks ? passageMarks(one, marks) : null));
  if (!items.length) return element("p", { class: "quiet" }, "No passage was read.");
  return element("ol", { class: "passages" }, ...items);
}

function shares(one) {
  const rows = [["p(z|x)", one.prior, "bar"]];
  if (one.responsibility !== null && one.responsibility !== undefined) rows.push(["p(z|x,y)", one.responsibility, "bar after"]);
  return element("div", { class: "shares" }, ...rows.flatMap(([name, share, kind]) => {
    const fill = element("span");
    fill.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
    return [element("span", {}, name), element("div", { class: kind, "aria-hidden": "true" }, fill), element("span", {}, percent(share))];
  }));
}

const COMMON = new Set("a an and are as at be by did do does for from had has have how i in is it its of on or that the this to was were what when where which who why will with".split(" "));
const wordsOf = (text) => new Set((text.replace(/<\/?e[12]>/g, "").toLowerCase().match(/[\p{L}\p{N}]+/gu) || []).filter((word) => !COMMON.has(word)));

function marked(text, query, answer, run) {
  if (run.form === "marked sentence") {
    return text.split(/(@ .+? @|# .+? #)/).map((part) => (/^(@ .+ @|# .+ #)$/.test(part) ? element("b", { class: "entity" }, ...matched(part.slice(2, -2), wordsOf(query))) : element("span", {}, ...matched(part, wordsOf(query)))));
  }
  const words = wordsOf(query), wanted = answer.trim().toLowerCase(), lower = text.toLowerCase(), parts = [];
  let start = 0;
  while (wanted && lower.length === text.length) {
    const found = lower.indexOf(wanted, start);
    if (found < 0) break;
    parts.push(...matched(text.slice(start, found), words), element("mark", { class: "said-here" }, text.slice(found, found + wanted.length)));
    start = found + wanted.length;
  }
  return [...parts, ...matched(text.slice(start), words)];
}

function matched(text, words) {
  return text.split(/([\p{L}\p{N}]+)/u).map((part) => (words.has(part.toLowerCase()) ? element("mark", {}, part) : part));
}

// ---- verdicts -------------------------------------------------------------------------------------------------------

function passageMarks(one, marks) {
  const buttons = [["right", "Right passage"], ["wrong", "Not right"]].map(([value, label]) => element("button", {
    type: "button", class: "mini", "aria-pressed": "false", onclick: (event) => {
      const chosen = marks.get(one.id) === value;
      chosen ? marks.delete(one.id) : marks.set(one.id, value);
      for (const button of event.target.parentNode.children) button.setAttribute("aria-pressed", String(!chosen && button === event.target));
    } }, label));
  return element("div", { class: "row", role: "group", "aria-label": `Mark passage ${one.id}` }, ...buttons);
}

function verdictForm(run, record, query, marks) {
  const note = element("span", { class: "quiet small", role: "status" });
  const field = run.labels.length ? element("select", { "aria-label": "The right relation" }, ...run.labels.map((label) => element("option", {}, label))) : element("input", { "aria-label": "The right answer", placeholder: "the right answer" });
  const send = (verdict, correction) => attempt(async () => {
    const passages = (value) => [...marks].filter(([, mark]) => mark === value).map(([id]) => id);
    const body = { ...query, run: run.name, answer: record.answer, verdict, right_passages: passages("right"), wrong_passages: passages("wrong") };
    await ask("/api/feedback", correction === undefined ? body : { ...body, correction });
    note.textContent = "Kept. Thank you.";
  });
  return element("div", { class: "row", role: "group", "aria-label": `Verdict on the answer of ${run.name}` },
    element("button", { type: "button", class: "mini", onclick: () => send("right") }, "Right"),
    element("button", { type: "button", class: "mini", onclick: () => send("wrong") }, "Wrong"),
    field,
    element("button", { type: "button", class: "mini", onclick: () => send("corrected", field.value) }, "Correct"),
    note);
}

// ---- test examples --------------------------------------------------------------------------------------------------

async function loadExamples(offset) {
  const wanted = { run: byId("examples-run").value, only: byId("examples-only").value, contains: byId("examples-contains").value, offset };
  const record = await askLatest("examples", () => ask("/api/examples", wanted));
  if (!record) return;
  if (offset === 0) {
    const names = [["Query", "text"], ["Right", "text"], ["Answer", "text"], ["Correct", ""], ["Confidence", ""]];
    byId("examples").replaceChildren(element("thead", {}, element("tr", {}, ...names.map(([name, kind]) => element("th", { class: kind, scope: "col" }, name)), element("th", {}, element("span", { class: "small" }, "Again")))), element("tbody"));
  }
  byId("examples").tBodies[0].append(...record.examples.map((one) => exampleRow(one, record.run)));
  state.offset = offset + record.examples.length;
  byId("examples-count").textContent = `${state.offset} of ${record.found} shown; ${record.all} in the test`;
  byId("examples-more").hidden = state.offset >= record.found;
}

function exampleRow(one, run) {
  const kind = one.correctness === null ? "" : one.correctness >= 1 ? "good" : "bad";
  return element("tr", {},
    element("td", { class: "text long" }, one.query),
    element("td", { class: "text" }, one.gold.slice(0, 3).join(" / ")),
    element("td", { class: `text ${kind}` }, one.answer || "(empty)"),
    element("td", {}, percent(one.correctness)),
    element("td", {}, percent(one.confidence)),
    element("td", {}, element("button", { type: "button", class: "mini", "aria-label": `Ask again: ${one.query.slice(0, 80)}`, onclick: () => askAgain(one.query) }, "Ask")));
}

function askAgain(query) {
  state.turns = [];
  showTurns();
  byId("query").value = query;
  show("ask");
  attempt(() => askRuns(false));
}

// ---- weights --------------------------------------------------------------------------------------------------------

const number = (value) => (value === null || value === undefined ? "" : Math.abs(value) >= 1000 || (value !== 0 && Math.abs(value) < 0.0005) ? value.toExponential(2) : value.toFixed(3));

async function loadWeights() {
  const wanted = { run: byId("weights-run").value || "", example: Number(byId("weights-example").value) };
  const record = await askLatest("weights", () => ask("/api/weights", wanted));
  if (!record) return;
  const run = state.runs.find((one) => one.name === record.run);
  const columns = [["log p(z|x)", "log_prior"], ["log p(y|x,z)", "log_likelihood"], ["p(z|x,y)", "responsibility"], ["pull on the score of z", "prior_pull"], ["weight of z for the generator", "generator_weight"]];
  const shown = columns.filter(([, name]) => record.candidates.some((one) => one[name] !== null));
  const head = element("tr", {}, element("th", { class: "text", scope: "col" }, "Passage"), ...shown.map(([name]) => element("th", { scope: "col" }, name)));
  const rows = record.candidates.map((one) => element("tr", {}, element("td", { class: "text long" }, element("b", {}, one.title || one.id || ""), " ", ...marked(one.text, textOf(record), record.target, run)), ...shown.map(([, name]) => element("td", {}, number(one[name])))));
  byId("weights").replaceChildren(
    element("p", {}, element("b", {}, textOf(record)), " → ", element("b", {}, record.target)),
    element("p", { class: "quiet small" }, `Example ${record.example} of ${record.of}, ${record.candidates.length} candidates; the objective is ${record.objective}. A step of training raises the score of a passage where the pull is positive.`),
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of candidates" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows))));
}

// ---- curves of a training -------------------------------------------------------------------------------------------

// Values that differ by rounding alone would have no readable axis.
function rangeOf(_, least, most) {
  if (least === null) return [0, 1];
  const size = Math.max(Math.abs(least), Math.abs(most)), span = most - least;
  const room = span > 1e-3 * size ? 0.1 * span : 0.1 * size || 1;
  return [least - room, most + room];
}

const short = (value) => (value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(4))));

const HIDDEN = new Set(["step", "time", "at", "stage", "alarm", "says", "remedy"]);

async function watch() {
  state.isWatching = true;
  let record = null;
  try {
    record = await ask(`/api/curves?from=${state.curves.next}`);
    if (record.reset) Object.assign(state.curves, { points: [], alarms: 0 }), byId("alarms").replaceChildren();
    state.curves.next = record.next;
    for (const point of record.points) {
      if (point.alarm) byId("alarms").append(element("li", { class: "problem" }, `${point.stage}, step ${point.step}: ${point.says} ${point.remedy}`));
      else state.curves.points.push(point);
    }
    if (record.points.length || record.reset) drawCurves();
    const last = state.curves.points.at(-1);
    const where = last ? `${last.stage}, step ${last.step}` : "nothing is logged yet";
    byId("curves-state").textContent = `${state.watched}: ${where}${record.ended ? "; the training has ended" : "; updated every two seconds"}`;
  } catch (error) { tell(error); }
  state.isWatching = !record || record.more || !record.ended;
  if (state.isWatching) setTimeout(watch, record && record.more ? 0 : 2000);
}

function drawCurves() {
  if (byId("view-curves").hidden) return;
  const stages = [...new Set(state.curves.points.map((point) => point.stage))];
  const names = [...new Set(state.curves.points.flatMap((point) => Object.keys(point)))].filter((name) => !HIDDEN.has(name));
  names.sort((one, other) => (other === "loss") - (one === "loss"));
  const style = getComputedStyle(document.documentElement), color = (name) => style.getPropertyValue(name).trim();
  byId("curves").replaceChildren();
  for (const name of names) {
    const tables = stages.map((stage) => state.curves.points.filter((point) => point.stage === stage && point[name] !== undefined)).map((points) => [points.map((point) => point.step), points.map((point) => point[name])]);
    const used = stages.map((stage, place) => [stage, tables[place], place]).filter(([, table]) => table[0].length);
    const figure = element("figure", {}, element("figcaption", {}, name.replaceAll("_", " ")));
    const axis = { stroke: color("--quiet"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line"), width: 1 } };
    const series = used.map(([stage, table, place]) => ({ label: stage, stroke: color(`--series-${1 + (place % 5)}`), width: 2, points: { show: table[0].length < 40 } }));
    byId("curves").append(figure);
    new uPlot({ width: figure.clientWidth - 16, height: 200, scales: { x: { time: false, range: rangeOf }, y: { range: rangeOf } }, axes: [axis, { ...axis, size: 64, values: (_, ticks) => ticks.map(short) }], series: [{ label: "step" }, ...series] }, uPlot.join(used.map(([, table]) => table)), figure);
  }
}

// ---- what is pressed ------------------------------------------------------------------------------------------------

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.token = byId("token").value.trim();
  sessionStorage.setItem("retrograd-token", state.token);
  attempt(begin);
});
byId("ask-form").addEventListener("submit", (event) => { event.preventDefault(); attempt(() => askRuns(false), byId("ask-answer")); });
byId("ask-search").addEventListener("click", (event) => { if (byId("ask-form").reportValidity()) attempt(() => askRuns(true), event.target); });
byId("ask-example").addEventListener("click", () => { state.turns = []; showTurns(); byId("query").value = state.runs[0].example || "The <e1>cup</e1> holds <e2>tea</e2>."; byId("query").focus(); });
byId("ask-over").addEventListener("click", () => { state.turns = []; showTurns(); byId("results").replaceChildren(); byId("query").value = ""; });
byId("query").addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); byId("ask-form").requestSubmit(); } });
byId("examples-form").addEventListener("submit", (event) => { event.preventDefault(); attempt(() => loadExamples(0)); });
byId("examples-more").addEventListener("click", () => attempt(() => loadExamples(state.offset)));
byId("weights-form").addEventListener("submit", (event) => { event.preventDefault(); attempt(loadWeights); });
byId("weights-next").addEventListener("click", () => { byId("weights-example").value = Number(byId("weights-example").value) + 1; attempt(loadWeights); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (state.watched) drawCurves(); });

// The token comes once, behind the address, and is taken from there, so that no history and no copied address holds it.
const fragment = new URLSearchParams(location.hash.slice(1)).get("token");
if (fragment) { sessionStorage.setItem("retrograd-token", fragment); history.replaceState(null, "", location.pathname); }
state.token = sessionStorage.getItem("retrograd-token") || "";
attempt(begin);
