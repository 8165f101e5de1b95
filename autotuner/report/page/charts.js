// One plotting function: points, lines, bands and steps in SVG, drawn at the width of their box.

const MARGIN = { left: 58, right: 14, top: 12, bottom: 38 };
const PICK_DISTANCE = 22, SAME_PLACE = 7;

function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((each) => each >= raw * 0.999);
  const values = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-6; value += step) values.push(Number(value.toPrecision(12)));
  return values;
}

function logTicks(low, high) {
  const values = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const factor of [1, 2, 5]) {
      const value = Number((factor * 10 ** power).toPrecision(6));
      if (value >= low * 0.999 && value <= high * 1.001) values.push(value);
    }
  }
  return values;
}

function scale(values, axis, from, to) {
  const finite = values.filter((value) => value !== null && value !== undefined && isFinite(value));
  const isLog = Boolean(axis.log) && finite.every((value) => value > 0) && finite.length > 0;
  let low = axis.from ?? (isLog ? Math.min(...finite) : 0), high = axis.to ?? Math.max(...finite, 1e-9) * (isLog ? 1 : 1.06);
  if (isLog) [low, high] = low === high ? [low / 2, high * 2] : [low / 1.12, high * 1.12];
  const position = isLog
    ? (value) => from + (to - from) * (Math.log(value) - Math.log(low)) / (Math.log(high) - Math.log(low))
    : (value) => from + (to - from) * (value - low) / (high - low || 1);
  return { low, high, position, ticks: axis.ticks || (isLog ? logTicks(low, high) : ticks(low, high, axis.count || 5)) };
}

// chart: {box, height, x: {label, format, log}, y: the same, series: [{colour, points, line, band, step, dash, faint}],
// region: {from, to, text}, targets: [{x or y, text}], title}. A point: {x, y, low, high, shape, large, ring, label,
// lines, pick, focusable, key}.
function plot(chart) {
  const width = Math.max(260, Math.floor(chart.box.clientWidth || 600)), height = chart.height;
  const all = chart.series.flatMap((series) => series.points);
  const left = chart.y.wide ? 74 : MARGIN.left;
  const x = scale(all.map((point) => point.x).concat(chart.x.include || []), { count: width < 500 ? 4 : 8, ...chart.x }, left, width - MARGIN.right);
  const y = scale(all.flatMap((point) => [point.y, point.high]).concat(chart.y.include || []), chart.y, height - MARGIN.bottom, MARGIN.top);
  const clampY = (value) => Math.max(MARGIN.top, Math.min(height - MARGIN.bottom, y.position(value)));
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": chart.title });
  drawFrame(root, chart, x, y, left, width, height);
  for (const series of chart.series) drawLine(root, series, x, clampY);
  const drawn = [];
  for (const series of chart.series) {
    for (const point of series.points) {
      if (!point.shape || point.y === null || point.y === undefined || !isFinite(point.y)) continue;
      const place = { point, left: x.position(point.x), top: clampY(point.y) };
      const mark = drawMark(series, place);
      root.append(mark);
      drawn.push({ ...place, mark });
    }
  }
  drawLabels(root, drawn, width);
  chart.box.replaceChildren(...(chart.heading ? [html("h3", {}, chart.heading)] : []), root);
  if (drawn.some((each) => each.point.lines)) attachPicking(chart.box, root, drawn);
  return root;
}

function drawFrame(root, chart, x, y, left, width, height) {
  const bottom = height - MARGIN.bottom, right = width - MARGIN.right;
  const inside = (value) => Math.max(left, Math.min(right, x.position(value)));
  if (chart.region) {
    const from = inside(Math.max(chart.region.from, x.low)), to = inside(Math.min(chart.region.to, x.high));
    if (to > from) root.append(svg("rect", { class: "region", x: from, y: MARGIN.top, width: to - from, height: bottom - MARGIN.top }));
    const atLeft = chart.region.from <= x.low;
    root.append(svg("text", { class: "target-text", x: atLeft ? from + 6 : to - 6, y: MARGIN.top + 13, "text-anchor": atLeft ? "start" : "end" },
      to > from ? chart.region.text : `${chart.region.text} (off this axis)`));
  }
  for (const value of y.ticks) {
    const top = y.position(value);
    root.append(svg("line", { class: "grid", x1: left, x2: right, y1: top, y2: top }),
      svg("text", { x: left - 6, y: top + 4, "text-anchor": "end" }, chart.y.format(value)));
  }
  let last = -Infinity;
  for (const value of x.ticks) {
    const text = chart.x.format(value), at = x.position(value);
    if (at - text.length * 3.4 < last + 6) continue;
    last = at + text.length * 3.4;
    root.append(svg("text", { x: at, y: bottom + 16, "text-anchor": "middle" }, text));
  }
  root.append(svg("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }),
    svg("text", { class: "axis-label", x: (left + right) / 2, y: height - 5, "text-anchor": "middle" }, chart.x.label));
  for (const target of chart.targets || []) {
    if (target.y !== undefined && target.y <= y.high) {
      root.append(svg("line", { class: "target", x1: left, x2: right, y1: y.position(target.y), y2: y.position(target.y) }));
    }
    if (target.x !== undefined && target.x >= x.low && target.x <= x.high) {
      root.append(svg("line", { class: "target", x1: x.position(target.x), x2: x.position(target.x), y1: MARGIN.top, y2: bottom }));
    }
  }
}

function drawLine(root, series, x, clampY) {
  const points = series.points.filter((point) => point.y !== null && point.y !== undefined && isFinite(point.y));
  if (series.band) {
    const banded = points.filter((point) => point.low !== null && point.low !== undefined && point.high !== null && point.high !== undefined);
    if (banded.length > 1) {
      const upper = banded.map((point) => `${x.position(point.x)},${clampY(point.high)}`);
      const lower = banded.map((point) => `${x.position(point.x)},${clampY(point.low)}`).reverse();
      root.append(svg("path", { class: `band ${series.colour}`, d: `M${upper.join("L")}L${lower.join("L")}Z` }));
    }
  }
  if (!series.line || points.length < 2) return;
  const steps = points.map((point, i) => (series.step && i ? `${x.position(point.x)},${clampY(points[i - 1].y)}L` : "") + `${x.position(point.x)},${clampY(point.y)}`);
  root.append(svg("path", { class: `line ${series.colour}${series.faint ? " faint" : ""}${series.strong ? " strong" : ""}`, d: `M${steps.join("L")}` }));
}

const STAR = Array.from({ length: 10 }, (_, i) => [(i % 2 ? 0.45 : 1) * Math.cos(i * Math.PI / 5 - Math.PI / 2), (i % 2 ? 0.45 : 1) * Math.sin(i * Math.PI / 5 - Math.PI / 2)]);

function drawMark(series, { point, left, top }) {
  const radius = point.large ? 9 : series.colour === "other" ? 3.2 : 4.8;
  const attributes = { class: `mark ${series.colour} ${point.shape}${point.ring ? " selected" : ""}` };
  if (point.focusable) {
    Object.assign(attributes, {
      tabindex: 0, role: "button", "aria-label": point.lines.join("; "), "data-key": point.key,
      onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); point.pick(); } },
    });
  }
  if (point.shape === "winner") return svg("path", { ...attributes, d: `M${STAR.map(([a, b]) => `${left + 1.15 * radius * a},${top + 1.15 * radius * b}`).join("L")}Z` });
  if (point.shape === "undecided") return svg("rect", { ...attributes, x: left - radius * 0.9, y: top - radius * 0.9, width: radius * 1.8, height: radius * 1.8 });
  if (point.shape === "untrusted") return svg("path", { ...attributes, d: `M${left - 3.5},${top - 3.5}l7,7m0,-7l-7,7` });
  return svg("circle", { ...attributes, cx: left, cy: top, r: radius });
}

function drawLabels(root, drawn, width) {
  const boxes = drawn.filter((each) => each.point.shape === "winner" || each.point.large).map((each) => [each.left - 9, each.top - 9, each.left + 9, each.top + 9]);
  for (const { point, left, top } of drawn) {
    if (!point.label) continue;
    const size = point.label.length * 6.4, away = point.shape === "winner" || point.large ? 10 : 8;
    for (const [dx, dy] of [[away, -7], [away, 15], [-size - away, -7], [-size - away, 15]]) {
      const box = [left + dx, top + dy - 10, left + dx + size, top + dy + 3];
      const free = box[0] > MARGIN.left && box[2] < width && box[1] > 0
        && !boxes.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3]);
      if (!free) continue;
      boxes.push(box);
      root.append(svg("text", { class: "point-label", x: left + dx, y: top + dy }, point.label));
      break;
    }
  }
}

// Points hide one another: the nearest one is picked, and all at its place are named.
function attachPicking(box, root, drawn) {
  const tip = html("div", { class: "tip", hidden: true });
  box.append(tip);
  const show = (nearest) => {
    const here = drawn.filter((each) => each.point.lines && Math.hypot(each.left - nearest.left, each.top - nearest.top) <= SAME_PLACE);
    here.sort((a, b) => Number(b === nearest) - Number(a === nearest));
    tip.replaceChildren(...here.slice(0, 3).map((each) => html("div", {}, html("b", {}, each.point.lines[0]), ...each.point.lines.slice(1).map((line) => html("div", {}, line)))),
      here.length > 3 ? html("div", {}, `and ${here.length - 3} more here`) : "");
    tip.hidden = false;
    const ratio = root.getBoundingClientRect().width / root.viewBox.baseVal.width;
    const offset = root.offsetTop ?? (root.getBoundingClientRect().top - box.getBoundingClientRect().top);
    const at = nearest.left * ratio;
    tip.style.left = `${Math.max(0, Math.min(at + 14, box.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${(offset || 0) + nearest.top * ratio + 14}px`;
  };
  const nearestTo = (event) => {
    const frame = root.getBoundingClientRect(), ratio = frame.width / root.viewBox.baseVal.width;
    const [left, top] = [(event.clientX - frame.left) / ratio, (event.clientY - frame.top) / ratio];
    let nearest = null, distance = PICK_DISTANCE;
    for (const each of drawn) {
      const away = Math.hypot(each.left - left, each.top - top);
      if (each.point.lines && away < distance) [nearest, distance] = [each, away];
    }
    return nearest;
  };
  const hide = () => { tip.hidden = true; };
  root.addEventListener("pointermove", (event) => {
    const nearest = nearestTo(event);
    root.classList.toggle("pickable", Boolean(nearest && nearest.point.pick));
    if (nearest) show(nearest); else hide();
  });
  root.addEventListener("pointerleave", hide);
  root.addEventListener("click", (event) => {
    const nearest = nearestTo(event);
    if (nearest && nearest.point.pick) nearest.point.pick();
  });
  for (const each of drawn) {
    if (!each.point.focusable) continue;
    each.mark.addEventListener("focus", () => show(each));
    each.mark.addEventListener("blur", hide);
  }
}
