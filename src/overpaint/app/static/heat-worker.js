// Reads a photo's maps and finds regions in a worker, so that the page stays responsive.

import { decodeGrey } from "/static/png.js";
import { atOrAbove, evidenceOf, findRegions, levels } from "/static/heat.js";

let evidence = null, heat = null;

const tasks = {
  /** The maps at all sizes, from the bytes of the PNG files of heatmap and mask. */
  async open(files) {
    heat = await decodeGrey(files.heat);
    evidence = evidenceOf(heat, files.window);
    return { heat: levels(heat, false), evidence: levels(evidence, true),
      mask: levels(await decodeGrey(files.mask), true), counts: atOrAbove(evidence.values) };
  },
  regions: ({ level }) => findRegions(evidence, heat, level),
};

// One request after the other, so that regions are never those of an earlier photo.
let last = Promise.resolve();
addEventListener("message", ({ data: { id, task, about } }) => {
  last = last.then(async () => {
    try {
      postMessage({ id, answer: await tasks[task](about) });
    } catch (error) {
      postMessage({ id, error: error.message });
    }
  });
});
