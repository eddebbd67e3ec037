// Grey PNG of 8 and 16 bit (W3C PNG, third edition), read and written: a canvas has only 8 bits.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];

async function pipeThrough(stream, bytes) {
  const made = new Blob([bytes]).stream().pipeThrough(stream);
  return new Uint8Array(await new Response(made).arrayBuffer());
}

/** {width, height, values} of a grey PNG that is not interlaced; values: Uint8Array or Uint16Array.
 * buffer: ArrayBuffer. Throws Error for anything else. */
export async function decodeGrey(buffer) {
  const bytes = new Uint8Array(buffer), view = new DataView(buffer);
  if (SIGNATURE.some((value, i) => bytes[i] !== value)) throw new Error("no PNG file");
  let at = 8, head = null;
  const parts = [];
  while (at + 8 <= bytes.length) {
    const length = view.getUint32(at), type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const start = at + 8;
    if (type === "IHDR") {
      head = { width: view.getUint32(start), height: view.getUint32(start + 4), depth: bytes[start + 8],
        colour: bytes[start + 9], interlace: bytes[start + 12] };
    } else if (type === "IDAT") parts.push(bytes.subarray(start, start + length));
    else if (type === "IEND") break;
    at = start + length + 4;
  }
  if (!head || head.colour !== 0 || head.interlace !== 0 || ![8, 16].includes(head.depth)) {
    throw new Error("no grey PNG of 8 or 16 bit");
  }
  const { width, height, depth } = head, size = depth / 8, stride = width * size;
  const raw = await pipeThrough(new DecompressionStream("deflate"), new Blob(parts));
  if (raw.length !== height * (stride + 1)) throw new Error("a damaged PNG");
  unfilter(raw, height, stride, size);
  const values = size === 1 ? new Uint8Array(width * height) : new Uint16Array(width * height);
  for (let y = 0, to = 0; y < height; y++) {
    let from = y * (stride + 1) + 1;
    if (size === 1) {
      values.set(raw.subarray(from, from + stride), to);
      to += width;
    } else for (let x = 0; x < width; x++, from += 2) values[to++] = (raw[from] << 8) | raw[from + 1];
  }
  return { width, height, values };
}

/** Undo the filters, in place; each row is one byte of filter type, then the row. */
function unfilter(raw, height, stride, size) {
  for (let y = 0; y < height; y++) {
    const start = y * (stride + 1) + 1, end = start + stride, above = start - stride - 1;
    switch (raw[start - 1]) {
      case 0: break;
      case 1:
        for (let i = start + size; i < end; i++) raw[i] += raw[i - size];
        break;
      case 2:
        if (y) for (let i = start, u = above; i < end; i++, u++) raw[i] += raw[u];
        break;
      case 3:
        for (let i = start, u = above; i < end; i++, u++) {
          raw[i] += ((i < start + size ? 0 : raw[i - size]) + (y ? raw[u] : 0)) >> 1;
        }
        break;
      case 4:
        for (let i = start, u = above; i < end; i++, u++) {
          const a = i < start + size ? 0 : raw[i - size], b = y ? raw[u] : 0;
          const c = i < start + size || !y ? 0 : raw[u - size];
          const pa = Math.abs(b - c), pb = Math.abs(a - c), pc = Math.abs(a + b - 2 * c);
          raw[i] += pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
        }
        break;
      default: throw new Error("a damaged PNG");
    }
  }
}

/** A grey PNG of 8 bit as a Blob. values: Uint8Array, row by row. */
export async function encodeGrey(values, width, height) {
  const raw = new Uint8Array(height * (width + 1)); // filter type 0 before each row
  for (let y = 0; y < height; y++) raw.set(values.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const head = new Uint8Array(13), view = new DataView(head.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  head.set([8, 0, 0, 0, 0], 8);
  const packed = await pipeThrough(new CompressionStream("deflate"), raw);
  const chunks = [makeChunk("IHDR", head), makeChunk("IDAT", packed), makeChunk("IEND", new Uint8Array(0))];
  return new Blob([new Uint8Array(SIGNATURE), ...chunks], { type: "image/png" });
}

function makeChunk(type, data) {
  const out = new Uint8Array(data.length + 12), view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  for (let i = 0; i < 4; i++) out[4 + i] = type.charCodeAt(i);
  out.set(data, 8);
  view.setUint32(data.length + 8, crc(out.subarray(4, data.length + 8)));
  return out;
}

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = CRC[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}
