// What the page does when it is opened, when something is chosen, and when a run that goes on sends news.

const state = { content: null, points: [], colours: new Map(), live: null, shown: {} };

// Redrawing must not lose the keyboard's place: the focus goes back to the element with the same key.
function keepFocus(draw) {
  const key = document.activeElement && document.activeElement.dataset && document.activeElement.dataset.key;
  draw();
  if (!key) return;
  const again = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (again && again !== document.activeElement) again.focus({ preventScroll: true });
}

function load(content) {
  const first = state.content === null;
  const unchanged = !first && sameTargets(state.content, view.targets);
  state.content = content;
  state.points = pointsOf(content);
  state.colours = assignColours(content);
  if (first || unchanged) view.targets = ownTargets(content);
  if (view.scenario >= content.scenarios.length) view.scenario = 0;
}

function choice(label, key, options, value, change) {
  return html("label", {}, `${label} `, html("select", { "data-key": key, id: key, onchange: (event) => { change(event.target.value); drawCharts(); } },
    options.map(([name, text]) => html("option", { value: name, selected: String(name) === String(value) }, text))));
}

function rebuildControls() {
  const content = state.content, box = byId("frontier-charts");
  const controls = html("div", { class: "bar" },
    content.scenarios.length > 1 ? choice("scenario", "scenario", content.scenarios.map((name, index) => [index, name]), view.scenario, (value) => { view.scenario = Number(value); }) : null,
    choice("across", "x-axis", X_AXES.map((name) => [name, axis(name).label]), view.x, (value) => { view.x = value; }),
    choice("up", "y-axis", Y_AXES.map((name) => [name, axis(name).label]), view.y, (value) => { view.y = value; rebuildControls(); }),
    view.y === "cost" && !content.priced ? html("label", {}, "price of a GPU-hour ", html("input", {
      type: "number", min: 0, step: 0.1, value: view.price || "", "data-key": "price", id: "price",
      oninput: (event) => { view.price = Number(event.target.value) || null; drawCharts(); },
    })) : null);
  keepFocus(() => box.replaceChildren(html("div", { class: "controls" }, controls, buildWhatIf()), html("div", { id: "what-if-answer" }),
    html("div", { id: "frontier-chart", class: "chart" }), html("div", { id: "frontier-legend", class: "legend" })));
}

function drawCharts() {
  keepFocus(() => { drawFrontier(); drawLoads(); drawWhatIf(); drawEffects(); });
  document.body.dataset.drawn = String(state.points.length);
}

function drawEffects() {
  const box = byId("settings-charts"), effects = state.content.effects.slice(0, 12);
  if (!box || !effects.length) { if (box) box.replaceChildren(); return; }
  const rows = effects.flatMap((effect, index) => effect.ratios.map((ratio) => ({ x: ratio, y: effects.length - index, shape: "feasible", lines: [`${effect.name} ${effect.from} → ${effect.to}`, `${number(ratio)}×`] })));
  const medians = effects.map((effect, index) => ({ x: effect.ratios[Math.floor(effect.ratios.length / 2)], y: effects.length - index }));
  const ratios = rows.map((row) => row.x).concat(1);
  const [from, to] = [Math.min(...ratios) / 1.05, Math.max(...ratios) * 1.05];
  const chart = html("div", { class: "chart" });
  box.replaceChildren(chart);
  plot({
    box: chart, height: 60 + 26 * effects.length, title: "ratios of matched pairs by setting", heading: "one dot for each pair of candidates that differ in this setting alone; right of 1 the change is better",
    x: { label: `ratio of ${state.content.objective.label}`, format: (value) => `${number(value)}×`, log: true, from: from, to: to, ticks: ratioTicks(from, to) },
    y: { from: 0.4, to: effects.length + 0.6, ticks: effects.map((_, index) => index + 1), format: () => "" }, targets: [{ x: 1 }],
    series: [{ colour: "s1", points: rows }],
  });
  effects.forEach((effect, index) => {
    const root = chart.querySelector("svg"), height = 60 + 26 * effects.length;
    const at = MARGIN.top + (height - MARGIN.bottom - MARGIN.top) * (index + 0.6) / (effects.length + 0.2);
    root.append(svg("text", { class: "row-label", x: MARGIN.left + 4, y: at - 7 }, `${effect.name} ${effect.from} → ${effect.to}`));
  });
  chart.dataset.medians = medians.map((median) => number(median.x)).join(" ");
}

function ratioTicks(from, to) {
  const wanted = to / from > 8 ? [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100] : to / from > 1.6 ? [0.25, 0.33, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2, 2.5, 3, 4] : [1].concat(ticks(from, to, 5).filter((value) => Math.abs(value - 1) > 0.004));
  return wanted.filter((value) => value >= from && value <= to).sort((a, b) => a - b);
}

// Sorting and filtering of the table of candidates, which stands in the document.
function enhanceTables() {
  for (const pre of document.querySelectorAll("pre[data-copy]")) if (!pre.parentElement.classList.contains("copyable")) addCopyButton(pre);
  const ranking = document.querySelector("table.ranking");
  if (!ranking || ranking.dataset.enhanced) return;
  ranking.dataset.enhanced = "yes";
  ranking.querySelectorAll("thead th").forEach((head, column) => {
    const button = html("button", { type: "button", "data-key": `sort-${head.textContent}`, onclick: () => sortBy(ranking, head, column) }, head.textContent);
    head.replaceChildren(button);
  });
  for (const group of ranking.tBodies) {
    const link = group.querySelector("a");
    if (!link) continue;
    group.dataset.trial = link.textContent;
    link.dataset.key = `trial-${link.textContent}`;
    group.addEventListener("click", (event) => {
      event.preventDefault();
      link.focus();
      openDetail(Number(group.dataset.trial), null);
      byId("detail").scrollIntoView({ block: "start" });
    });
  }
  const input = html("input", { type: "search", id: "filter", "data-key": "filter", placeholder: "tp-size=2 feasible", oninput: () => filterRows(ranking, input.value) });
  const box = byId("candidates-charts");
  const before = byId("filter") ? byId("filter").value : "";
  input.value = before;
  box.replaceChildren(html("div", { class: "bar" }, html("label", {}, "filter ", input), html("span", { class: "muted" }, "choose a row for its details")));
  if (before) filterRows(ranking, before);
}

function filterRows(ranking, words) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  for (const group of ranking.tBodies) {
    const text = group.textContent.toLowerCase();
    group.hidden = !wanted.every((word) => text.includes(word));
  }
}

function sortBy(ranking, head, column) {
  const descending = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const keyOf = (group) => {
    const text = group.rows[0].cells[column].textContent.trim();
    const value = parseFloat(text.replace(/[<,]/g, ""));
    return isNaN(value) ? text : value;
  };
  const compare = (a, b) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);
  const groups = Array.from(ranking.tBodies).sort((a, b) => compare(keyOf(a), keyOf(b)) * (descending ? -1 : 1));
  ranking.append(...groups);
}

function openFromAddress() {
  const match = /^#trial=(\d+)$/.exec(location.hash);
  if (match) openDetail(Number(match[1]), null);
}

// A page that is served asks for the launches it does not hold, and hears of a run that goes on.
function connect(live) {
  const status = html("p", { id: "live-status", class: "muted", role: "status" }, "live");
  document.body.prepend(status);
  const events = new EventSource(`/events?version=${encodeURIComponent(live.version)}`);
  events.onopen = () => { status.textContent = "live: this page follows the run folder"; };
  events.onerror = () => { status.textContent = "not live: the server of this page does not answer; what is shown stays"; };
  events.onmessage = (event) => {
    const news = JSON.parse(event.data);
    document.title = news.title;
    update(news.sections, news.content);
    document.body.dataset.version = event.lastEventId;
  };
  state.live = { fetchLaunches: (numbers) => Promise.all(numbers.map(fetchLaunch)) };
}

async function fetchLaunch(number) {
  const answer = await fetch(`/launches/${number}`);
  if (!answer.ok) return;
  const { limits, trials } = await answer.json();
  const known = state.content.launches;
  known.limits = known.limits || [];
  known.trials = known.trials || {};
  const places = limits.map(([name, limit]) => known.limits.push([name, limit]) - 1);
  for (const [trial, launch] of Object.entries(trials)) {
    for (const point of launch.points) point.checks = point.checks.map(([limit, value, passed]) => [places[limit], value, passed]);
    known.trials[trial] = launch;
  }
}

// News of a run that goes on: sections whose elements changed are replaced, the charts are drawn again.
function update(sections, content) {
  const selected = view.selected && { trial: view.selected.candidate.trial, at: view.selected.point && view.selected.point.at };
  load(content);
  keepFocus(() => {
    for (const [name, data] of Object.entries(sections)) {
      const target = byId(data[1].id || name);
      if (target && state.shown[name] !== JSON.stringify(data)) target.replaceWith(fromData(data));
      state.shown[name] = JSON.stringify(data);
    }
    rebuildControls();
    enhanceTables();
    drawCharts();
  });
  if (selected) {
    const candidate = content.candidates.find((each) => each.trial === selected.trial);
    if (candidate) {
      view.selected = { candidate, point: state.points.find((point) => point.owner === candidate && point.at === selected.at) || null };
      drawDetail();
    }
  }
}

function start() {
  load(JSON.parse(byId("data").textContent));
  rebuildControls();
  enhanceTables();
  drawCharts();
  openFromAddress();
  addEventListener("hashchange", openFromAddress);
  addEventListener("keydown", (event) => { if (event.key === "Escape" && view.selected) closeDetail(); });
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => { drawCharts(); if (view.selected) drawDetail(); }, 120); });
  addEventListener("beforeprint", () => { for (const details of document.querySelectorAll("main details")) details.open = true; });
  if (state.content.live) connect(state.content.live);
  document.body.dataset.ready = "yes";
}

start();
