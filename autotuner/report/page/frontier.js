// The frontier, the load curves and the question what if the targets were others.

const SERIES = 6;
const AXES = {
  interactivity: { label: "tokens/s per user (1 / mean TPOT)", value: (point) => point.interactivity, sign: 1, format: number },
  ttft_p99: { label: "TTFT p99, ms", value: (point) => point.ttft_p99 && 1e3 * point.ttft_p99, sign: -1, format: number },
  ttft: { label: "mean TTFT, ms", value: (point) => point.ttft && 1e3 * point.ttft, sign: -1, format: number },
  e2e: { label: "mean E2E latency, s", value: (point) => point.e2e, sign: -1, format: number },
  output: { label: "output tokens/s per GPU", value: (point) => point.output, sign: 1, format: number },
  total: { label: "prompt + output tokens/s per GPU", value: (point) => point.total, sign: 1, format: number },
  cost: { label: "cost of 1M output tokens", value: (point) => point.cost, sign: -1, format: number },
};
const X_AXES = ["interactivity", "ttft_p99", "ttft", "e2e"], Y_AXES = ["output", "total", "cost"];

const view = { scenario: 0, x: "interactivity", y: "output", price: null, targets: null, hidden: new Set(), selected: null };

function axis(name) {
  const chosen = AXES[name];
  if (name !== "cost") return chosen;
  if (state.content.priced) return { ...chosen, label: "cost of 1M output tokens, in the currency of the price" };
  if (view.price) return { ...chosen, label: "cost of 1M output tokens", value: (point) => point.cost && point.cost * view.price / 3600 };
  return { ...chosen, label: "GPU-seconds per 1M output tokens" };
}

function colourOf(candidate) {
  return state.colours.get(candidate.trial) || "other";
}

// The winner first, then the defaults, then by rank: colours for a few, grey for the rest.
function assignColours(content) {
  const first = content.candidates.filter((candidate) => candidate.winner || candidate.defaults);
  const named = [...first, ...content.candidates.filter((candidate) => !first.includes(candidate) && candidate.value !== null)];
  return new Map(named.slice(0, SERIES).map((candidate, index) => [candidate.trial, `s${index + 1}`]));
}

function candidateName(candidate) {
  return candidate.name.startsWith("defaults") ? candidate.name : `trial ${candidate.trial}: ${candidate.name}`;
}

function shapeOf(point, verdict) {
  if (!point.trusted) return "untrusted";
  return verdict === "feasible" ? "feasible" : verdict === "undecided" ? "undecided" : verdict === null ? "unknown" : "infeasible";
}

function isBest(point) {
  return point.owner.winner && point.owner.best.includes(point.at) && sameTargets(state.content, view.targets);
}

function pointLines(point, verdict) {
  const share = sameTargets(state.content, view.targets) ? { value: point.good, low: point.good_low, high: point.good_high } : attainmentAt(state.content, point, view.targets);
  const launches = point.launches > 1 ? `, ${point.launches} launches` : "";
  return [
    `#${point.owner.rank} ${candidateName(point.owner)}`,
    `${point.at}: ${verdict || "not known"}${launches}, n ${point.n.toLocaleString("en")}`,
    ...(state.content.hasTerms && share && share.value !== null ? [`${percent(share.value)} within targets${interval(share.low, share.high, percent)}`] : []),
    `${number(point.output)} output tokens/s/GPU, ${number(point.interactivity)} tokens/s per user`,
    `TTFT mean ${duration(point.ttft)}, p99 ${duration(point.ttft_p99)}; TPOT ${duration(point.tpot)}`,
  ];
}

function visiblePoints() {
  return state.points.filter((point) => point.scenario === view.scenario && !view.hidden.has(point.owner.trial));
}

function drawFrontier() {
  const box = byId("frontier-chart");
  if (!box) return;
  const [x, y] = [axis(view.x), axis(view.y)];
  const points = visiblePoints().filter((point) => [x, y].every((each) => each.value(point)));
  const members = new Set(frontierPoints(state.content, points, [x, y], view.targets));
  const line = [...members].sort((a, b) => x.value(a) - x.value(b)).map((point) => ({ x: x.value(point), y: y.value(point) }));
  const series = [{ colour: "ink", line: true, strong: true, points: line }];
  const labelled = new Set();
  const owners = [...state.content.candidates].reverse();
  for (const candidate of owners) {
    const colour = colourOf(candidate);
    const own = points.filter((point) => point.owner === candidate).sort((a, b) => a.load - b.load);
    series.push({
      colour, line: colour !== "other" || owners.length <= 12, faint: true,
      points: own.map((point) => {
        const verdict = verdictAt(state.content, point, view.targets), best = isBest(point), place = `${x.value(point)}/${y.value(point)}`;
        const isLabelled = (members.has(point) || best) && !labelled.has(place);
        if (isLabelled) labelled.add(place);
        return {
          x: x.value(point), y: y.value(point), shape: best ? "winner" : shapeOf(point, verdict), large: best,
          ring: view.selected && view.selected.point === point, label: isLabelled ? loadLabel(point) : null,
          lines: pointLines(point, verdict), pick: () => openDetail(point.owner.trial, point),
          focusable: members.has(point) || best, key: `point-${point.index}`,
        };
      }),
    });
  }
  keepFocus(() => plot({
    box, height: box.clientWidth < 600 ? 360 : 430, title: `${y.label} against ${x.label}`, heading: y.label,
    x: { label: x.label, format: x.format, log: spansDecades(points.map(x.value)) },
    y: { format: y.format }, series, region: sloRegion(),
  }));
  byId("frontier").dataset.frontier = [...members].map((point) => point.index).sort((a, b) => a - b).join(" ");
  drawLegend(points, members);
}

// Latencies near saturation would squeeze all others into the corner of a linear axis.
function spansDecades(values) {
  const positive = values.filter((value) => value > 0);
  return positive.length > 1 && Math.max(...positive) > 30 * Math.min(...positive);
}

function loadLabel(point) {
  return point.open ? `${number(point.load)}/s` : String(point.load);
}

function sloRegion() {
  const shown = state.content.targets.shown, changed = !sameTargets(state.content, view.targets);
  const limit = (metric, name) => {
    if (changed && view.targets[metric] !== null) return { seconds: view.targets[metric], text: `${name} ≤ ${duration(view.targets[metric])}` };
    return shown[metric];
  };
  if (view.x === "interactivity") {
    const tpot = limit("tpot", "TPOT");
    return tpot ? { from: 1 / tpot.seconds, to: Infinity, text: tpot.text } : null;
  }
  const latency = view.x === "e2e" ? shown.latency : limit("ttft", "TTFT");
  return latency ? { from: -Infinity, to: latency.seconds * (view.x === "e2e" ? 1 : 1e3), text: latency.text } : null;
}

function drawLegend(points, members) {
  const present = new Set(points.map((point) => shapeOf(point, verdictAt(state.content, point, view.targets))));
  const keys = [
    ["feasible", state.content.hasTerms ? "meets the targets" : "load point"], ["undecided", "undecided: too few requests to tell"],
    ["infeasible", "misses a target"], ["unknown", "not known"], ["untrusted", "failed, invalid or saturated"],
  ].filter(([shape]) => present.has(shape));
  const sample = (colour, shape) => svg("svg", { viewBox: "0 0 14 14", width: 14, height: 14, "aria-hidden": "true" }, drawMark({ colour }, { point: { shape }, left: 7, top: 7 }));
  const coloured = state.content.candidates.filter((candidate) => colourOf(candidate) !== "other");
  coloured.sort((a, b) => colourOf(a).localeCompare(colourOf(b)));
  byId("frontier-legend").replaceChildren(
    ...coloured.map((candidate) => html("button", {
      type: "button", "aria-pressed": String(!view.hidden.has(candidate.trial)), title: "show or hide",
      "data-key": `legend-${candidate.trial}`, onclick: () => { toggle(view.hidden, candidate.trial); drawCharts(); },
    }, sample(colourOf(candidate), "feasible"), ` #${candidate.rank} ${candidateName(candidate)}`)),
    html("p", { class: "muted" }, ...keys.flatMap(([shape, text]) => [sample("other", shape), ` ${text} · `]),
      `${members.size ? "dark line: frontier of the loads that meet the targets · " : ""}numbers: ${state.content.candidates.length && points.some((point) => point.open) ? "requests/s" : "requests in flight"}`),
  );
}

function toggle(set, value) {
  if (set.has(value)) set.delete(value); else set.add(value);
}

function drawLoads() {
  const box = byId("loads-charts");
  if (!box) return;
  const points = visiblePoints().filter((point) => colourOf(point.owner) !== "other");
  const shown = state.content.targets.shown, open = points.some((point) => point.open);
  const charts = [
    { heading: "output tokens/s per GPU", value: (point) => [point.output, point.output_low, point.output_high], format: number },
    { heading: "TTFT p99, ms", value: (point) => [point.ttft_p99, point.ttft_p99_low, point.ttft_p99_high], scale: 1e3, format: number, target: shown.ttft && shown.ttft.seconds },
    { heading: "mean TPOT, ms", value: (point) => [point.tpot, point.tpot_low, point.tpot_high], scale: 1e3, format: number, target: shown.tpot && shown.tpot.seconds },
    ...(state.content.hasTerms ? [{ heading: "requests within targets", value: (point) => [point.good, point.good_low, point.good_high], format: percent, target: state.content.targets.attainment, to: 1.02, ticks: [0, 0.25, 0.5, 0.75, 1] }] : []),
  ];
  box.replaceChildren(...charts.map(() => html("div", { class: "chart" })));
  charts.forEach((chart, index) => drawLoadChart(box.children[index], chart, points, open));
}

function drawLoadChart(box, chart, points, open) {
  const factor = chart.scale || 1;
  const scaled = (value) => (value === null || value === undefined ? value : value * factor);
  const limit = chart.target === null || chart.target === undefined ? undefined : chart.target * factor;
  const highest = Math.max(...points.map((point) => scaled(chart.value(point)[0]) || 0));
  const to = chart.to ?? (limit ? Math.min(highest, 3 * limit) || limit : highest) * 1.08;
  const series = [...state.content.candidates].reverse().filter((candidate) => colourOf(candidate) !== "other").map((candidate) => ({
    colour: colourOf(candidate), line: true, band: true,
    points: points.filter((point) => point.owner === candidate).sort((a, b) => a.load - b.load).map((point) => {
      const [value, low, high] = chart.value(point).map(scaled), verdict = verdictAt(state.content, point, view.targets);
      return {
        x: point.load, y: value, low, high, shape: shapeOf(point, verdict), pick: () => openDetail(candidate.trial, point),
        lines: [`#${candidate.rank} ${candidateName(candidate)}`, `${point.at}: ${chart.heading} ${chart.format(value)}${interval(low, high, chart.format)}`],
      };
    }),
  }));
  plot({
    box, height: 230, title: `${chart.heading} against load`, heading: chart.heading, series,
    x: { label: open ? "requests/s" : "requests in flight", format: (value) => number(value), log: true, ticks: [...new Set(points.map((point) => point.load))].sort((a, b) => a - b) },
    y: { format: chart.format, to: to || 1, ticks: chart.ticks, count: 4 }, targets: limit === undefined ? [] : [{ y: limit }],
  });
}

// Sliders on the targets of single requests: the run's own requests counted again.
function buildWhatIf() {
  const content = state.content;
  if (!Object.keys(content.requests).length) return html("p", { class: "muted" }, "Other targets cannot be tried here: the page holds no single requests of this run.");
  const sliders = ["ttft", "tpot"].map((metric) => {
    const own = content.targets[metric];
    const values = state.points.map((point) => point[metric]).filter(Boolean);
    const middle = own || Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / Math.max(1, values.length)) * 2;
    const output = html("output", {}, own ? duration(own) : "no target");
    const slider = html("input", {
      type: "range", id: `what-if-${metric}`, min: -100, max: own ? 100 : 101, step: 1, value: own ? 0 : 101, "data-key": `what-if-${metric}`,
      oninput: () => {
        const step = Number(slider.value);
        view.targets[metric] = step === 101 ? null : step === 0 && own ? own : Number((middle * 4 ** (step / 100)).toPrecision(3));
        output.textContent = view.targets[metric] === null ? "no target" : duration(view.targets[metric]);
        slider.setAttribute("aria-valuetext", output.textContent);
        drawCharts();
      },
    });
    return html("label", {}, `${metric.toUpperCase()} of each request ≤ `, slider, output);
  });
  const reset = html("button", { type: "button", onclick: () => { view.targets = ownTargets(content); rebuildControls(); drawCharts(); } }, "the run's own targets");
  return html("div", { class: "bar" }, html("b", {}, "What if"), ...sliders, reset);
}

function ownTargets(content) {
  return { ttft: content.targets.ttft, tpot: content.targets.tpot };
}

function drawWhatIf() {
  const box = byId("what-if-answer");
  if (!box) return;
  if (sameTargets(state.content, view.targets)) { box.replaceChildren(); return; }
  const content = state.content, best = bestAt(content, state.points, view.targets);
  const limits = ["ttft", "tpot"].filter((metric) => view.targets[metric] !== null).map((metric) => `${metric.toUpperCase()} ≤ ${duration(view.targets[metric])}`);
  const goal = limits.length ? `${limits.join(" and ")} for ${number(100 * content.targets.attainment)}% of requests` : "no targets on single requests";
  const answer = best
    ? `the best of the loads that were measured: #${best.candidate.rank} ${candidateName(best.candidate)}, at ${best.points.map((point) => `${point.at} (${number(point.output)} output tokens/s/GPU, ${shareText(point)})`).join("; ")}.`
    : "no load that was measured is proven to meet them.";
  const unknown = state.points.filter((point) => point.trusted && verdictAt(content, point, view.targets) === null).length;
  const options = ["ttft", "tpot"].filter((metric) => view.targets[metric] !== null).map((metric) => `${metric}=${Number((view.targets[metric]).toPrecision(3))}`);
  box.replaceChildren(html("div", { class: "what-if", role: "status" },
    html("h3", {}, "WHAT IF, not searched for these targets"),
    html("p", {}, `With ${goal}: ${answer}`),
    html("p", { class: "muted" }, "The requests of the loads that this run measured, counted again",
      content.targets.otherTerms ? "; targets on means, percentiles and rates stay as they were" : "", unknown ? `; of ${unknown} load points the page has no requests` : "",
      options.length ? `. To search for them: autotune run --slo ${options.join(",")}, with the run's other options.` : ".")));
}

function shareText(point) {
  const share = attainmentAt(state.content, point, view.targets);
  return share ? `${percent(share.value)}${interval(share.low, share.high, percent)} within them` : "";
}
