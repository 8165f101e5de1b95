// The page on which a pair of workers is picked: looking selects, and only a confirmed pick is sent to the server.

const selected = { prefill: 0, decode: 0 };
let content = null;
let asked = 0;

function latencyText(seconds) {
  return `${number(1000 * seconds, 4)} ms`;
}

function pairQuery() {
  const prefill = content.prefill[selected.prefill], decode = content.decode[selected.decode];
  return new URLSearchParams({ prefill: prefill.name, decode: decode.name, requests: decode.requests }).toString();
}

function workerText(worker) {
  return worker.requests === undefined ? worker.label : `${worker.label} with ${number(worker.requests)} requests in flight`;
}

function choose(phase, at) {
  selected[phase] = at;
  draw();
  showPair();
}

function costOf(prefill, decode) {
  return (content.isl / prefill.throughput + content.osl / decode.throughput) / 3.6;
}

// Every mapping has the same colour in all charts.
function colours() {
  const names = [...new Set(content.prefill.concat(content.decode).map((worker) => worker.label))].sort();
  return new Map(names.map((name, at) => [name, at < 6 ? `s${at + 1}` : "other"]));
}

function seriesOf(workers, figures) {
  const byMapping = new Map();
  workers.forEach((worker, at) => byMapping.set(worker.label, (byMapping.get(worker.label) || []).concat([{ worker, at }])));
  const colour = colours();
  return [...byMapping].map(([label, group]) => ({
    colour: colour.get(label), line: true, faint: true,
    points: group.map(({ worker, at }) => figures(worker, at)).sort((a, b) => a.x - b.x),
  }));
}

function chart(phase, { box, height = 300, title, x, y, target, value, figures }) {
  const workers = content[phase];
  const labelled = new Set();
  const series = seriesOf(workers, (worker, at) => {
    const first = !labelled.has(worker.label);
    labelled.add(worker.label);
    return {
      x: 1000 * worker.latency, y: value(worker), shape: at === 0 ? "winner" : worker.meets ? "feasible" : "infeasible",
      ring: at === selected[phase], label: first || at === selected[phase] ? worker.label : null,
      lines: [workerText(worker), ...figures(worker), at === 0 ? "chosen by the profile" : worker.meets ? "within the target" : "beyond the target"],
      pick: () => choose(phase, at), focusable: true, key: `${title}-${at}`,
    };
  });
  plot({
    box, height, title, series,
    x: { label: x, format: (each) => number(each), include: [1000 * target], log: true },
    y: { ...y, wide: true, include: [1.15 * Math.max(...workers.map(value))] }, // room for the words above the points
    region: { from: 0, to: 1000 * target, text: "within the target" }, targets: [{ x: 1000 * target }],
  });
}

function keepFocus(change) {
  const key = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.key : null;
  change();
  const again = key ? document.querySelector(`[data-key="${CSS.escape(key)}"]`) : null;
  if (again) again.focus({ preventScroll: true });
}

function draw() {
  const count = (each) => number(each);
  keepFocus(() => {
    if (content.prefill.length) {
      chart("prefill", {
        box: byId("prefill-chart"), title: "prefill workers", x: "TTFT in ms", y: { label: "", format: count }, target: content.ttft,
        value: (worker) => worker.throughput,
        figures: (worker) => [`TTFT ${latencyText(worker.latency)}`, `${number(worker.throughput, 4)} prompt tokens/s per GPU`],
      });
    }
    if (content.decode.length) {
      chart("decode", {
        box: byId("decode-chart"), title: "decode workers", x: "ITL in ms", y: { label: "", format: count }, target: content.itl,
        value: (worker) => worker.throughput,
        figures: (worker) => [`ITL ${latencyText(worker.latency)}`, `${number(worker.throughput, 4)} output tokens/s per GPU`],
      });
    }
    if (content.complete) {
      const prefill = content.prefill[selected.prefill];
      chart("decode", {
        box: byId("cost-chart"), title: "cost", x: "ITL in ms", y: { label: "", format: count }, target: content.itl,
        value: (worker) => costOf(prefill, worker),
        figures: (worker) => [`ITL ${latencyText(worker.latency)}`, `${number(costOf(prefill, worker))} GPU-hours per 1,000 requests`],
      });
      byId("cost-note").textContent = `With ${prefill.label} for prefill.`;
    }
    markRows();
  });
}

function markRows() {
  for (const phase of ["prefill", "decode"]) {
    for (const row of document.querySelectorAll(`#${phase}-table tbody tr`)) {
      const at = Number(row.dataset.worker), cell = row.cells[0];
      row.classList.toggle("selected", at === selected[phase]);
      let button = cell.querySelector("button");
      if (!button) {
        button = html("button", { type: "button", "data-key": `${phase}-row-${at}` }, cell.textContent);
        cell.replaceChildren(button);
        row.addEventListener("click", () => choose(phase, at));
      }
      button.setAttribute("aria-pressed", String(at === selected[phase]));
    }
  }
}

async function showPair() {
  const turn = ++asked;
  let answer;
  try {
    answer = await fetch(`/pair?${pairQuery()}`);
  } catch {
    if (turn === asked) say("The server of this page does not answer: is `autotune ui` still running?");
    return;
  }
  if (turn !== asked) return;
  if (!answer.ok) { say(await answer.text()); return; }
  const data = await answer.json();
  if (turn !== asked) return;
  byId("pair").replaceWith(fromData(data));
  showActions();
}

function showActions() {
  for (const pre of document.querySelectorAll("#pair pre[data-copy]")) addCopyButton(pre);
  const title = document.querySelector("#pair h3");
  byId("actions").replaceChildren(html("div", { class: "bar" },
    html("button", { type: "button", id: "pick", "data-key": "pick", class: "primary", onclick: askForConfirmation }, "Pick these workers…"),
    title ? html("a", { href: `/manifest?${pairQuery()}`, download: title.textContent, id: "download" }, `Download ${title.textContent}`) : null));
}

function say(text) {
  byId("picked").textContent = text;
}

function askForConfirmation() {
  const prefill = content.prefill[selected.prefill], decode = content.decode[selected.decode];
  const pick = { prefill: prefill.name, decode: decode.name, requests: decode.requests };
  const title = document.querySelector("#pair h3");
  const files = ["picked.json"].concat(title ? [title.textContent] : []).join(" and ");
  const missed = [[prefill, "TTFT"], [decode, "ITL"]].filter(([worker]) => !worker.meets).map(([, name]) => name);
  const dialog = html("dialog", { id: "confirm", "aria-labelledby": "confirm-title" },
    html("h2", { id: "confirm-title" }, "Pick these workers?"),
    html("p", {}, `Prefill: ${workerText(prefill)}. Decode: ${workerText(decode)}.`),
    missed.length ? html("p", { class: "not-passed" }, `Beyond the target: ${missed.join(" and ")}.`) : null,
    html("p", {}, `This writes ${files} into ${content.folder}, over an earlier pick. Nothing is deployed.`),
    html("div", { class: "bar" },
      html("button", { type: "button", id: "confirm-pick", class: "primary", onclick: () => { dialog.close(); sendPick(pick); } }, "Pick"),
      html("button", { type: "button", id: "cancel-pick", onclick: () => dialog.close() }, "Cancel")));
  dialog.addEventListener("close", () => { dialog.remove(); byId("pick").focus(); });
  document.body.append(dialog);
  dialog.showModal();
  byId("cancel-pick").focus();
}

async function sendPick(pick) {
  try {
    const answer = await fetch("/pick", { method: "POST", headers: { "X-Autotune-Token": content.token, "Content-Type": "application/json" }, body: JSON.stringify(pick) });
    say(answer.ok ? (await answer.json()).text : `Nothing was picked. ${await answer.text()}`);
  } catch {
    say("Nothing was picked: the server of this page does not answer.");
  }
  byId("picked").scrollIntoView({ block: "nearest" });
}

function start() {
  content = JSON.parse(byId("data").textContent);
  draw();
  if (content.complete) showActions();
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(draw, 120); });
  document.body.dataset.ready = "yes";
}

start();
