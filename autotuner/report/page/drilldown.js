// One candidate at one load point: figures, distributions, launches, checks, command, log.

const PURPOSES = { search: "search", baseline: "the engine's defaults", confirmation: "confirmation" };
let opener = null;

function openDetail(trial, point) {
  const candidate = state.content.candidates.find((each) => each.launches.includes(trial));
  if (!candidate) return;
  const own = state.points.filter((each) => each.owner === candidate);
  const chosen = point || own.find((each) => each.scenario === view.scenario && candidate.best.includes(each.at)) || own.find((each) => candidate.best.includes(each.at)) || own[0] || null;
  if (byId("detail").hidden) opener = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.key || document.activeElement : null;
  view.selected = { candidate, point: chosen };
  history.replaceState(null, "", `#trial=${trial}`);
  drawDetail();
  drawFrontier();
  byId("detail-title").focus();
  if (state.live && !launchOf(candidate.trial)) state.live.fetchLaunches(candidate.launches).then(drawDetail);
}

function closeDetail() {
  view.selected = null;
  byId("detail").hidden = true;
  byId("detail").replaceChildren();
  history.replaceState(null, "", location.pathname + location.search);
  drawFrontier();
  const target = typeof opener === "string" ? document.querySelector(`[data-key="${CSS.escape(opener)}"]`) : opener;
  if (target && target.isConnected) target.focus();
}

function launchOf(trial) {
  const trials = state.content.launches.trials;
  return trials ? trials[trial] : undefined;
}

function drawDetail() {
  const box = byId("detail");
  if (!view.selected) { box.hidden = true; return; }
  const { candidate, point } = view.selected;
  const own = state.points.filter((each) => each.owner === candidate);
  const launches = candidate.launches.map((trial) => [trial, launchOf(trial)]).filter(([, launch]) => launch);
  const select = html("select", {
    "data-key": "detail-load", onchange: (event) => { openDetail(candidate.trial, own[Number(event.target.value)]); byId("detail").querySelector("select").focus(); },
  }, own.map((each, index) => html("option", { value: index, selected: each === point }, `${each.at}: ${each.verdict}`)));
  const plots = html("div", { class: "chart-grid" });
  keepFocus(() => {
    box.hidden = false;
    box.replaceChildren();
    fill(box, {}, [
      html("div", { class: "bar" }, html("h2", { id: "detail-title", tabindex: -1 }, `#${candidate.rank} ${candidateName(candidate)}`),
        own.length ? html("label", {}, "load point ", select) : null,
        html("button", { type: "button", "data-key": "detail-close", onclick: closeDetail }, "close (Esc)")),
      html("p", {}, `${candidate.failure ? `${candidate.failure}: ` : candidate.verdict ? `${candidate.verdict}: ` : ""}${candidate.reason}`),
      plots,
      html("div", { class: "columns" }, point ? figuresTable(point) : null, launchesTable(launches, point)),
      checksTable(launches, point), failureNotes(launches), launchFiles(candidate, launches),
    ]);
  });
  if (point) drawDistributions(plots, point, launches);
}

function drawDistributions(box, point, launches) {
  const requests = requestsOf(state.content, point), shown = state.content.targets.shown;
  if (!requests) {
    box.append(html("p", { class: "muted" }, "This page holds no single requests of this load point."));
  } else {
    const metrics = [[0, "ttft"], [1, "tpot"]], boxes = metrics.map(() => html("div", { class: "chart" }));
    const timeline = launches.find(([, launch]) => launch.timelines && (launch.timelines[point.at] || []).length);
    box.append(...boxes, timeline ? html("div", { class: "chart" }) : ""); // all before the first is drawn at its width
    for (const [offset, metric] of metrics) {
      const codes = Array.from(requests.codes).filter((code, index) => index % 2 === offset && code !== 0 && code !== FAILED_CODE).sort((a, b) => a - b);
      if (!codes.length) continue;
      const total = requests.codes.length / 2, chart = boxes[offset];
      const limit = shown[metric] ? [{ x: shown[metric].seconds * 1e3 }] : [];
      plot({
        box: chart, height: 230, title: `distribution of ${metric.toUpperCase()}`, heading: `${metric.toUpperCase()}: share of requests below, n ${state.content.requests[point.index].n.toLocaleString("en")}${total < state.content.requests[point.index].n ? `, ${total} of them drawn` : ""}`,
        x: { label: `${metric.toUpperCase()}, ms${limit.length ? "; dashed: target" : ""}`, format: number, include: limit.map((each) => each.x), count: 5 },
        y: { format: percent, to: 1.02, ticks: [0, 0.25, 0.5, 0.75, 1] }, targets: limit,
        series: [{ colour: "s1", line: true, step: true, points: codes.map((code, index) => ({ x: secondsOf(code) * 1e3, y: (index + 1) / total })) }],
      });
    }
    if (timeline) drawTimeline(box.lastElementChild, timeline[0], timeline[1].timelines[point.at]);
  }
}

function drawTimeline(chart, trial, rows) {
  const width = Math.max(260, chart.clientWidth), height = 230, left = 8, right = width - 8, bottom = height - 38;
  const from = Math.min(...rows.map((row) => row[0])), to = Math.max(...rows.map((row) => row[0] + row[2]));
  const at = (seconds) => left + (right - left) * (seconds - from) / (to - from || 1), step = (bottom - 12) / rows.length;
  const bars = rows.flatMap(([sent, ttft, e2e], index) => {
    const place = { y: 12 + index * step, height: Math.max(0.8, step * 0.8) };
    return [svg("rect", { ...place, class: "waiting", x: at(sent), width: Math.max(0.6, at(sent + ttft) - at(sent)) }),
      svg("rect", { ...place, class: "decoding", x: at(sent + ttft), width: Math.max(0.6, at(sent + e2e) - at(sent + ttft)) })];
  });
  const labels = ticks(from, to, 5).map((value) => svg("text", { x: at(value), y: bottom + 16, "text-anchor": "middle" }, `${number(value)}`));
  chart.append(html("h3", {}, `first ${rows.length} requests of trial ${trial}: waiting for the first token, then decoding`),
    svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "timeline of requests" }, bars, labels,
      svg("text", { class: "axis-label", x: (left + right) / 2, y: height - 5, "text-anchor": "middle" }, "s from the start of the window")));
}

function table(head, rows, label) {
  return html("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, html("table", {},
    html("thead", {}, html("tr", {}, head.map((title, index) => html("th", { scope: "col", class: index ? "number" : null }, title)))),
    html("tbody", {}, rows.map((row) => html("tr", {}, row.map((cell, index) => html(index ? "td" : "th", index ? { class: "number" } : { scope: "row" }, cell)))))));
}

function figuresTable(point) {
  const rows = [
    ["output tokens/s/GPU", `${number(point.output)}${interval(point.output_low, point.output_high, number)}`],
    ["prompt + output tokens/s/GPU", number(point.total)],
    ["tokens/s per user", number(point.interactivity)],
    ["TTFT, mean", `${duration(point.ttft)}${interval(point.ttft_low, point.ttft_high, duration)}`],
    ["TTFT, p50", duration(point.ttft_p50)],
    ["TTFT, p99", `${duration(point.ttft_p99)}${interval(point.ttft_p99_low, point.ttft_p99_high, duration)}`],
    ["TPOT, mean", `${duration(point.tpot)}${interval(point.tpot_low, point.tpot_high, duration)}`],
    ["TPOT, p99", duration(point.tpot_p99)],
    ["E2E, mean", duration(point.e2e)], ["E2E, p99", duration(point.e2e_p99)],
    ...(point.good === null ? [] : [["requests within targets", `${percent(point.good)}${interval(point.good_low, point.good_high, percent)}`]]),
    ...(point.watts === null ? [] : [["power of its GPUs, W", number(point.watts)]]),
    ["requests", point.n.toLocaleString("en")],
  ];
  return html("div", {}, html("h3", {}, `${point.at}, with 95% confidence intervals${point.launches > 1 ? `, over ${point.launches} launches` : ""}`), table(["figure", "value"], rows, "figures of the load point"));
}

function launchesTable(launches, point) {
  if (!launches.length) return html("p", { class: "muted" }, "Details of its launches are in the run folder.");
  const rows = launches.map(([trial, launch]) => {
    const here = point && [...launch.points].reverse().find((each) => each.at === point.at);
    const [output, ttft, tpot, good, n, watts] = here ? here.figures : [];
    return [`trial ${trial}`, PURPOSES[launch.purpose] || launch.purpose, here ? here.verdict : launch.failure ? launch.failure[0] : "not measured", number(output), duration(ttft), duration(tpot), percent(good), n === undefined ? "–" : n.toLocaleString("en"), number(watts),
      Object.entries(launch.seconds).map(([name, seconds]) => `${name} ${number(seconds)} s`).join(", ")];
  });
  return html("div", {}, html("h3", {}, "Its launches, side by side"), table(["launch", "purpose", "verdict", "output tokens/s/GPU", "TTFT p99", "TPOT", "within targets", "n", "W", "took"], rows, "launches of the candidate"));
}

function checksTable(launches, point) {
  const limits = state.content.launches.limits || [];
  const rows = new Map();
  launches.slice(0, 6).forEach(([, launch], column) => {
    const here = point && [...launch.points].reverse().find((each) => each.at === point.at);
    for (const [limit, value, passed] of here ? here.checks : []) {
      const [name, text] = limits[limit];
      if (!rows.has(name)) rows.set(name, [name, text, ...launches.slice(0, 6).map(() => "")]);
      rows.get(name)[2 + column] = html("span", { class: passed ? "passed" : "not-passed" }, `${passed ? "✓" : "✗"} ${value === null ? "" : number(value)}`);
    }
  });
  if (!rows.size) return null;
  const failedCount = [...rows.values()].flat().filter((cell) => cell.className === "not-passed").length;
  return html("details", { open: failedCount > 0 }, html("summary", {}, `Can it be believed: ${failedCount ? `${failedCount} checks not passed` : `all ${rows.size} validity checks passed`}`),
    table(["check", "limit", ...launches.slice(0, 6).map(([trial]) => `trial ${trial}`)], [...rows.values()], "validity checks"));
}

function failureNotes(launches) {
  return launches.filter(([, launch]) => launch.failure).map(([trial, launch]) => {
    const [kind, message, remedy] = launch.failure;
    return html("div", { class: "note" }, html("h3", {}, `Trial ${trial} failed: ${kind}`), html("pre", { tabindex: 0, "aria-label": "the engine's own words" }, message), remedy ? html("p", {}, remedy) : null);
  });
}

function launchFiles(candidate, launches) {
  const select = `autotune command ${state.content.run} --trial ${candidate.trial}`;
  return html("div", { class: "columns" },
    ...launches.slice(0, 1).flatMap(([trial, launch]) => [
      html("div", {}, html("h3", {}, `Command of trial ${trial}`), launch.command ? copyable(launch.command, "launch command") : html("p", { class: "muted" }, "It was running already."), html("p", { class: "muted" }, "In other forms: ", html("code", {}, select))),
      html("div", {}, html("h3", {}, "Server log, last lines"), launch.log.length ? copyable(launch.log.join("\n"), "server log") : html("p", { class: "muted" }, "No lines of it are in this page."),
        html("p", { class: "muted" }, `All its files: ${launch.folder}`,
          Object.entries(launch.server).map(([name, value]) => ` · ${name.replaceAll("_", " ")} ${value}`).join(""),
          launch.beside.length ? ` · ran beside trials ${launch.beside.join(", ")}` : "")),
    ]));
}
