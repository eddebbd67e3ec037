// Reads a photo's maps and finds regions, beside the page, so that it goes on answering.

import { decodeGrey } from "/static/png.js";
import { atOrAbove, findRegions, levels } from "/static/heat.js";

let evidence = null, heat = null;

const tasks = {
  /** The maps at all sizes, from the bytes of three PNG files. */
  async open(files) {
    const maps = {};
    for (const name of ["heat", "evidence", "mask"]) maps[name] = await decodeGrey(files[name]);
    ({ evidence, heat } = maps);
    return { heat: levels(heat, false), evidence: levels(evidence, true), mask: levels(maps.mask, true),
      counts: atOrAbove(evidence.values) };
  },
  regions: ({ level }) => findRegions(evidence, heat, level),
};

addEventListener("message", async ({ data: { id, task, about } }) => {
  try {
    postMessage({ id, answer: await tasks[task](about) });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
});
