// Zoom and pan of a photo by wheel, fingers, mouse and keys, shared by all its views.

import { clamp } from "/static/dom.js";

const LARGEST = 64; // CSS pixels of a pixel of the photo

/** The middle of the view in the photo's pixels, and the CSS pixels per pixel of the photo. Views that
 * share a camera show the same part. Sizes of views are {width, height} in CSS pixels. */
export class Camera extends EventTarget {
  x = 0;
  y = 0;
  scale = 1;
  fitted = true; // the whole photo is shown, also after a change of the view's size
  photo = { width: 1, height: 1 };

  /** Show another photo completely. */
  open(photo, size) {
    this.photo = photo;
    this.fit(size);
  }

  /** The scale at which the whole photo is visible; a small photo is enlarged by an integer factor. */
  fitScale(size) {
    const fit = Math.min(size.width / this.photo.width, size.height / this.photo.height);
    return fit > 1 ? Math.min(Math.floor(fit), 8) : Math.max(fit, 1e-4);
  }

  fit(size) {
    this.scale = this.fitScale(size);
    this.x = this.photo.width / 2;
    this.y = this.photo.height / 2;
    this.fitted = true;
    this.#tellChange();
  }

  /** One CSS pixel for each pixel of the photo. */
  showActual(size) {
    this.zoom(1 / this.scale, { x: size.width / 2, y: size.height / 2 }, size);
  }

  /** Zoom by a factor around a point of the view, CSS pixels, which does not move. */
  zoom(factor, at, size) {
    const fit = this.fitScale(size), low = Math.min(fit, 1) / 2;
    const { x, y } = this.toPhoto(at, size);
    this.scale = clamp(this.scale * factor, low, LARGEST);
    this.x = x - (at.x - size.width / 2) / this.scale;
    this.y = y - (at.y - size.height / 2) / this.scale;
    this.#settle();
  }

  /** Move the view by CSS pixels. */
  pan(right, down) {
    this.x += right / this.scale;
    this.y += down / this.scale;
    this.#settle();
  }

  /** Put a box of the photo into the middle, with a margin of its size around it. */
  show(box, size) {
    this.scale = clamp(Math.min(size.width / box.width, size.height / box.height) / 3, this.fitScale(size), 8);
    this.x = box.x + box.width / 2;
    this.y = box.y + box.height / 2;
    this.#settle();
  }

  toPhoto(at, size) {
    return { x: this.x + (at.x - size.width / 2) / this.scale, y: this.y + (at.y - size.height / 2) / this.scale };
  }

  toView(at, size) {
    return { x: (at.x - this.x) * this.scale + size.width / 2, y: (at.y - this.y) * this.scale + size.height / 2 };
  }

  #settle() {
    this.x = clamp(this.x, 0, this.photo.width);
    this.y = clamp(this.y, 0, this.photo.height);
    this.fitted = false;
    this.#tellChange();
  }

  #tellChange() {
    this.dispatchEvent(new Event("change"));
  }
}

/** Let an element control a camera. take: called for a press by mouse, pen or one finger; returns null to
 * pan, or an object with `move(event)`, `up(event)` and `cancel()` that gets the following events. point:
 * called with the position under the pointer, CSS pixels, or null. */
export function steer(element, camera, { take = () => null, point = () => {} }) {
  const fingers = new Map();
  let press = null;
  const size = () => ({ width: element.clientWidth, height: element.clientHeight });
  const place = (event) => {
    const box = element.getBoundingClientRect();
    return { x: event.clientX - box.left - element.clientLeft, y: event.clientY - box.top - element.clientTop };
  };
  const pinch = () => {
    const [a, b] = [...fingers.values()];
    return { apart: Math.max(Math.hypot(a.x - b.x, a.y - b.y), 1), x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  };

  element.addEventListener("wheel", (event) => {
    event.preventDefault();
    // A touchpad's pinch arrives as wheel events with Ctrl, in small steps.
    const pixels = event.deltaMode === 1 ? 33 * event.deltaY : event.deltaY;
    camera.zoom(Math.exp(-clamp(pixels, -240, 240) * (event.ctrlKey ? 0.01 : 0.002)), place(event), size());
  }, { passive: false });

  element.addEventListener("pointerdown", (event) => {
    if (event.button > 1) return;
    element.focus({ preventScroll: true });
    element.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, place(event));
    if (fingers.size === 2) {
      press?.cancel?.();
      press = null;
    } else if (fingers.size === 1) press = (event.button === 0 && take(event, place(event))) || {};
    if (event.button === 1) event.preventDefault(); // or the browser would scroll by itself
  });

  element.addEventListener("pointermove", (event) => {
    point(place(event), event);
    if (!fingers.has(event.pointerId)) return;
    const before = fingers.get(event.pointerId), now = place(event);
    if (fingers.size === 2) {
      const was = pinch();
      fingers.set(event.pointerId, now);
      const is = pinch();
      camera.pan(was.x - is.x, was.y - is.y);
      camera.zoom(is.apart / was.apart, is, size());
    } else {
      fingers.set(event.pointerId, now);
      if (press?.move) press.move(event, now);
      else if (press) camera.pan(before.x - now.x, before.y - now.y);
    }
  });

  const lifted = (event, ended) => {
    if (!fingers.delete(event.pointerId)) return;
    if (ended) press?.up?.(event, place(event));
    else press?.cancel?.();
    press = null;
  };
  element.addEventListener("pointerup", (event) => lifted(event, true));
  element.addEventListener("pointercancel", (event) => lifted(event, false));
  element.addEventListener("pointerleave", () => point(null));
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Columns and rows by which an arrow key moves, or null. */
export const findArrow = (event) => ARROWS[event.key] ?? null;

/** Zoom by a key; returns whether it was a key for zooming. */
export function zoomByKey(event, camera, size, at = { x: size.width / 2, y: size.height / 2 }) {
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  if (event.key === "+" || event.key === "=") camera.zoom(1.25, at, size);
  else if (event.key === "-") camera.zoom(0.8, at, size);
  else if (event.key === "0") camera.fit(size);
  else if (event.key === "1") camera.showActual(size);
  else return false;
  return true;
}

/** The buttons for zooming. size: of the view. */
export function makeZoomButtons(h, camera, size) {
  const middle = () => ({ x: size().width / 2, y: size().height / 2 });
  const button = (text, title, act) => h("button", { type: "button", title, onclick: act }, text);
  const signs = [button("\u2212", "Zoom out", () => camera.zoom(0.8, middle(), size())),
    button("+", "Zoom in", () => camera.zoom(1.25, middle(), size()))];
  for (const sign of signs) sign.setAttribute("aria-label", sign.title);
  return h("div", { class: "bar", role: "group", "aria-label": "Zoom" }, signs,
    button("Fit", "Whole photo", () => camera.fit(size())),
    button("1:1", "One pixel of the screen for each pixel of the photo", () => camera.showActual(size())));
}
