// Arithmetic on load points, without the document: shares, verdicts under other targets, frontiers.

const FAILED_CODE = 65535;
const Z_95 = 1.959963984540054;
const JUDGED = ["feasible", "undecided", "infeasible"];

function pointsOf(content) {
  return content.points.map((row, index) => {
    const point = { index };
    content.columns.forEach((name, column) => { point[name] = row[column]; });
    point.owner = content.candidates[point.candidate];
    return point;
  });
}

function decode(text) {
  const bytes = atob(text);
  const codes = new Uint16Array(bytes.length / 2);
  for (let i = 0; i < codes.length; i++) codes[i] = bytes.charCodeAt(2 * i) + 256 * bytes.charCodeAt(2 * i + 1);
  return codes;
}

function codeOf(seconds) {
  return Math.round(3500 * Math.log(seconds / 1e-5));
}

function secondsOf(code) {
  return 1e-5 * Math.exp(code / 3500);
}

// The single requests of a load point that the page has: codes of TTFT and TPOT, and which miss another target.
function requestsOf(content, point) {
  const packed = content.requests[point.index];
  if (!packed) return null;
  if (!packed.codes) {
    const codes = decode(packed.pairs);
    const misses = packed.misses ? Array.from(atob(packed.misses), (character) => character.charCodeAt(0)) : null;
    Object.defineProperty(packed, "codes", { value: { codes, misses }, enumerable: false });
  }
  return packed.codes;
}

function wilson(good, n, effective = n) {
  if (!n) return null;
  const value = good / n, size = Math.max(1, effective);
  const centre = value + Z_95 * Z_95 / (2 * size);
  const margin = Z_95 * Math.sqrt(value * (1 - value) / size + Z_95 * Z_95 / (4 * size * size));
  const scale = 1 + Z_95 * Z_95 / size;
  return { value, low: good === 0 ? 0 : (centre - margin) / scale, high: good === n ? 1 : (centre + margin) / scale, n };
}

// The share of requests within targets {ttft, tpot} in seconds, null for none; as the scoring counts them.
function attainmentAt(content, point, targets) {
  const requests = requestsOf(content, point);
  if (!requests) return null;
  const ttft = targets.ttft === null ? Infinity : codeOf(targets.ttft);
  const tpot = targets.tpot === null ? Infinity : codeOf(targets.tpot);
  let good = 0, n = 0;
  for (let i = 0; i < requests.codes.length; i += 2) {
    const [first, each] = [requests.codes[i], requests.codes[i + 1]];
    if (first !== FAILED_CODE && tpot !== Infinity && each === 0) continue; // no TPOT: left out, as in the run
    n += 1;
    const misses = requests.misses && requests.misses[i / 2];
    if (first !== FAILED_CODE && first <= ttft && each <= tpot && !misses) good += 1;
  }
  const dependence = point.good_effective && point.good_n ? point.good_effective / point.good_n : 1;
  return wilson(good, n, n * dependence);
}

function sameTargets(content, targets) {
  return targets.ttft === content.targets.ttft && targets.tpot === content.targets.tpot;
}

function hasTargets(content, targets) {
  return targets.ttft !== null || targets.tpot !== null || content.targets.otherTerms > 0 || content.targets.fixedTerms > 0;
}

// The verdict under these targets: the run's own under its own, null where the page lacks the requests to tell.
function verdictAt(content, point, targets) {
  if (sameTargets(content, targets) || !JUDGED.includes(point.verdict)) return point.verdict;
  const share = attainmentAt(content, point, targets);
  if (!share) return null;
  const shares = targets.ttft !== null || targets.tpot !== null || content.targets.fixedTerms > 0;
  const states = [point.others || "holds"];
  if (shares) {
    const target = content.targets.attainment;
    states.push(share.low >= target ? "holds" : share.high < target ? "fails" : "open");
  }
  return states.includes("fails") ? "infeasible" : states.includes("open") ? "undecided" : "feasible";
}

function dominates(a, b) {
  return a.some((value, i) => value !== b[i]) && a.every((value, i) => value >= b[i]);
}

// Indices of the points that no other dominates; equal points are all included. signs: 1 where more is better, else -1.
function frontierOf(points, signs) {
  const better = points.map((point) => point.map((value, i) => value * signs[i]));
  const order = better.map((_, i) => i).sort((a, b) => {
    for (let i = 0; i < signs.length; i++) if (better[a][i] !== better[b][i]) return better[b][i] - better[a][i];
    return 0;
  });
  const members = [];
  for (const index of order) if (!members.some((member) => dominates(better[member], better[index]))) members.push(index);
  return members.sort((a, b) => a - b);
}

// Which of these points of one scenario are on its frontier, by two axes, under targets.
function frontierPoints(content, points, axes, targets) {
  const limited = hasTargets(content, targets);
  const eligible = points.filter((point) => {
    const values = axes.map((axis) => axis.value(point));
    return point.trusted && values.every((value) => value !== null && value !== undefined && isFinite(value))
      && (!limited || verdictAt(content, point, targets) === "feasible");
  });
  const members = frontierOf(eligible.map((point) => axes.map((axis) => axis.value(point))), axes.map((axis) => axis.sign));
  return members.map((index) => eligible[index]);
}

// The candidate with the best objective among the loads that were measured, under targets; null where none meets them.
function bestAt(content, points, targets) {
  let best = null;
  for (const candidate of content.candidates) {
    const own = points.filter((point) => point.owner === candidate && point.trusted);
    const chosen = content.scenarios.map((_, scenario) => {
      const here = own.filter((point) => point.scenario === scenario && point.utility);
      const met = here.filter((point) => verdictAt(content, point, targets) === "feasible");
      if (content.objective.equalLoad) return met.length && met.length === here.length ? met : null;
      return met.length ? [met.reduce((a, b) => (b.utility > a.utility ? b : a))] : null;
    });
    if (chosen.some((each) => each === null)) continue;
    const used = chosen.flat();
    const utility = Math.exp(used.reduce((sum, point) => sum + Math.log(point.utility), 0) / used.length);
    if (!best || utility > best.utility) best = { candidate, utility, points: used };
  }
  return best;
}
