// Computations for the heatmap view, without the page: maps at several sizes, marking, regions, painting.
//
// - A map is {width, height, values}. Heat is Uint16Array, 65535 = 1; a mask is Uint8Array. Evidence is
//   Uint16Array, 1..65535 in even steps of log odds from -ODDS to ODDS.
// - Evidence is compared with the threshold: log odds of the heat, averaged in a window as on the command
//   line (`detection.calibration.average_logits`). For pixels that are not counted (transparent), heat and
//   evidence are 0.
// - Zoomed out, a canvas pixel covers several pixels of the photo. It shows their mean heat, but the largest
//   value of evidence and mask, so that every marked pixel stays visible. `makeLevels` has the halved sizes.
// - The colour map is that of the command line's overlay: dark blue to light yellow, with rising lightness.

const ODDS = 12; // log odds beyond which 16 bits of heat are 0 or 1
const SMALLEST = 256; // longer side at which halving ends, pixels
export const MIN_AREA = 16; // pixels; smaller regions are not listed, as on the command line
export const MAX_REGIONS = 100;

const RAMP = [[8, 24, 88], [48, 62, 112], [92, 98, 122], [138, 136, 120], [190, 178, 104], [255, 236, 80]];

/** The map and its halvings. largest: keep the largest of four instead of their mean. */
export function makeLevels(map, largest) {
  const all = [map];
  while (Math.max(map.width, map.height) > SMALLEST) all.push(map = halve(map, largest));
  return all;
}

function halve({ width, height, values }, largest) {
  const w = (width + 1) >> 1, h = (height + 1) >> 1, out = new values.constructor(w * h);
  for (let y = 0, to = 0; y < h; y++) {
    const upper = 2 * y * width, lower = Math.min(2 * y + 1, height - 1) * width;
    for (let x = 0; x < w; x++, to++) {
      const left = 2 * x, right = Math.min(left + 1, width - 1);
      const a = values[upper + left], b = values[upper + right], c = values[lower + left], d = values[lower + right];
      out[to] = largest ? Math.max(a, b, c, d) : (a + b + c + d + 2) >> 2;
    }
  }
  return { width: w, height: h, values: out };
}

/** For each threshold 0..65535 the number of values at or above it; index 1 counts all that are not 0. */
export function countAtOrAbove(values) {
  const counts = new Uint32Array(65537);
  for (let i = 0; i < values.length; i++) counts[values[i]]++;
  for (let level = 65535; level >= 0; level--) counts[level] += counts[level + 1];
  return counts;
}

/** Log odds as a value of evidence, 1..65535. */
export function toLevel(logit) {
  return 1 + Math.round((Math.min(Math.max(logit, -ODDS), ODDS) + ODDS) / (2 * ODDS) * 65534);
}

/** The log odds of a value of evidence. */
export const toLogit = (level) => (level - 1) / 65534 * 2 * ODDS - ODDS;

/** Evidence of heat. window: its side, pixels, odd; only counted pixels inside the photo are averaged. */
export function averageEvidence({ width, height, values }, window) {
  const odds = Float32Array.from({ length: 65536 }, (_, i) => (
    i ? Math.log(i / Math.max(65535 - i, 0.5)) : 0));
  const sums = new Float32Array(width * height), out = new Uint16Array(width * height);
  for (let i = 0; i < sums.length; i++) sums[i] = odds[values[i]];
  const counts = values.includes(0) ? Float32Array.from(values, (value) => Number(value > 0)) : null;
  for (const plane of [sums, counts]) if (plane && window > 1) averageWindows(plane, width, height, window >> 1);
  for (let i = 0; i < out.length; i++) {
    if (values[i]) out[i] = toLevel(counts ? sums[i] / counts[i] : sums[i]);
  }
  return { width, height, values: out };
}

/** Means in a square window, cut off at the borders, in place: of the columns, then of the rows. */
function averageWindows(plane, width, height, half) {
  const sums = new Float64Array(width), line = new Float32Array(Math.max(width, height));
  const kept = []; // original rows that are still in the window
  for (let y = -half; y < height; y++) {
    const enters = y + half, leaves = y - half - 1;
    if (enters < height) {
      const row = plane.slice(enters * width, (enters + 1) * width);
      kept.push(row);
      for (let x = 0; x < width; x++) sums[x] += row[x];
    }
    if (leaves >= 0) {
      const row = kept.shift();
      for (let x = 0; x < width; x++) sums[x] -= row[x];
    }
    if (y < 0) continue;
    const count = Math.min(y + half, height - 1) - Math.max(y - half, 0) + 1;
    for (let x = 0, at = y * width; x < width; x++, at++) plane[at] = sums[x] / count;
  }
  for (let y = 0; y < height; y++) {
    const start = y * width;
    line.set(plane.subarray(start, start + width));
    let sum = 0;
    for (let x = -half; x < width; x++) {
      if (x + half < width) sum += line[x + half];
      if (x - half - 1 >= 0) sum -= line[x - half - 1];
      if (x >= 0) plane[start + x] = sum / (Math.min(x + half, width - 1) - Math.max(x - half, 0) + 1);
    }
  }
}

export const toLogOdds = (share) => Math.log(share / (1 - share));
export const toShare = (logit) => 1 / (1 + Math.exp(-logit));

/** Share of untouched photos with more than 1 % above a threshold in log odds, from the curve of a quality
 * band {logits, levels}; null above its end, where only a bound is known. */
export function findFalseAlarmRate(curve, logit) {
  const { logits, levels: shares } = curve, last = logits.length - 1;
  if (logit > logits[last]) return null;
  if (logit <= logits[0]) return 1;
  let i = 1;
  while (logits[i] < logit) i++;
  const part = logits[i] === logits[i - 1] ? 1 : (logit - logits[i - 1]) / (logits[i] - logits[i - 1]);
  return 1 - (shares[i - 1] + part * (shares[i] - shares[i - 1]));
}

/** Connected regions (8-connectivity) of evidence at or above a level, the largest first: {regions, count}.
 * Each has x, y, width, height, area, mean (heat, 0..1). count: all of at least MIN_AREA pixels. */
export function findRegions(evidence, heat, level) {
  const { width, height, values } = evidence, parent = [];
  const root = (i) => {
    while (parent[i] !== i) i = parent[i] = parent[parent[i]];
    return i;
  };
  const found = []; // one entry for each run of marked pixels; runs of one region are joined at the end
  let above = [], row = [];
  for (let y = 0; y < height; y++) {
    [above, row] = [row, []];
    let from = 0;
    for (let x = 0, at = y * width; x < width; x++, at++) {
      if (values[at] < level) continue;
      const start = x;
      let sum = 0;
      for (; x < width && values[at] >= level; x++, at++) sum += heat.values[at];
      const id = found.length;
      found.push({ x: start, y, right: x, bottom: y + 1, area: x - start, sum });
      parent.push(id);
      row.push(id);
      // Runs of the row above touch if they end at or after this start and start at or before this end.
      while (from < above.length && found[above[from]].right < start) from++;
      for (let k = from; k < above.length && found[above[k]].x <= x; k++) {
        const a = root(above[k]), b = root(id);
        parent[Math.max(a, b)] = Math.min(a, b);
      }
    }
  }
  const boxes = new Map();
  found.forEach((run, i) => {
    const key = root(i), box = boxes.get(key);
    if (!box) boxes.set(key, { ...run });
    else {
      box.x = Math.min(box.x, run.x);
      box.right = Math.max(box.right, run.right);
      box.bottom = Math.max(box.bottom, run.bottom);
      box.area += run.area;
      box.sum += run.sum;
    }
  });
  const all = [...boxes.values()].filter((box) => box.area >= MIN_AREA)
    .sort((a, b) => b.area - a.area || a.y - b.y || a.x - b.x);
  const regions = all.slice(0, MAX_REGIONS).map(({ x, y, right, bottom, area, sum }) => (
    { x, y, width: right - x, height: bottom - y, area, mean: sum / area / 65535 }));
  return { regions, count: all.length };
}

/** Colours of heat by its upper 8 bits, as RGBA in the byte order of a canvas. opacity: 0..1. */
export function makeColours(opacity) {
  const out = new Uint8ClampedArray(1024);
  for (let i = 0; i < 256; i++) {
    const at = i / 255 * (RAMP.length - 1), k = Math.min(Math.floor(at), RAMP.length - 2), part = at - k;
    for (let c = 0; c < 3; c++) out[4 * i + c] = RAMP[k][c] + part * (RAMP[k + 1][c] - RAMP[k][c]);
    out[4 * i + 3] = 255 * opacity;
  }
  return new Uint32Array(out.buffer);
}

/** Paint heat, and the outline of marked pixels, into a picture of the canvas's pixels.
 *
 * picture: {width, height, data: Uint32Array}. place: {x, y, step}: the photo's pixels at the picture's left
 * upper corner, and how many of them a picture's pixel is wide. heat: its levels. marks: the levels of
 * evidence or of a mask; mark: the smallest value that is marked. lut: of `makeColours`. line: width of the
 * outline, pixels; white inside and black outside the border. */
export function paint(picture, place, heat, marks, mark, lut, line) {
  const { width, height, data } = picture, { x: left, y: top, step } = place;
  const k = Math.min(Math.max(Math.floor(Math.log2(step)), 0), heat.length - 1), size = 2 ** k;
  const map = heat[k], evidence = marks[k].values, photo = heat[0], values = map.values;
  const columns = new Int32Array(width);
  for (let x = 0; x < width; x++) {
    const at = Math.floor(left + (x + 0.5) * step);
    columns[x] = at < 0 || at >= photo.width ? -1 : Math.min(Math.floor(at / size), map.width - 1);
  }
  const marked = new Uint8Array(width * height);
  for (let y = 0, to = 0; y < height; y++, to += width) {
    const at = Math.floor(top + (y + 0.5) * step);
    if (at < 0 || at >= photo.height) {
      data.fill(0, to, to + width);
      continue;
    }
    const row = Math.min(Math.floor(at / size), map.height - 1) * map.width;
    for (let x = 0; x < width; x++) {
      if (columns[x] < 0) {
        data[to + x] = 0;
        continue;
      }
      const from = row + columns[x];
      data[to + x] = lut[values[from] >> 8];
      if (evidence[from] >= mark) marked[to + x] = 1;
    }
  }
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const own = marked[at];
      for (let d = 1; d <= line; d++) {
        if ((x >= d && marked[at - d] !== own) || (x + d < width && marked[at + d] !== own)
          || (y >= d && marked[at - d * width] !== own) || (y + d < height && marked[at + d * width] !== own)) {
          data[at] = own ? 0xffffffff : 0xff000000;
          break;
        }
      }
    }
  }
}
