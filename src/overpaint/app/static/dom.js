// Creation of elements, and messages for a screen reader.

/** An element. attributes: on* are listeners, true sets an empty attribute, null and false set none.
 * children: elements, text, or lists of them; null is left out. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== null && value !== false && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const $ = (id) => document.getElementById(id);

/** Send a message to the screen reader; it is not shown. */
export function announce(text) {
  const status = $("status");
  status.textContent = status.textContent === text ? `${text}\u00a0` : text;
}

/** Show an error that concerns no single photo, until the user closes it. */
export function showAlert(message, remedy = "") {
  const box = h("div", { class: "alert" },
    h("p", {}, message, remedy ? ` ${remedy}` : ""),
    h("button", { type: "button", class: "plain", onclick: () => box.remove() }, "Close"));
  $("alerts").append(box);
}

/** A button that is on or off. */
export function toggle(text, on, onchange, title = null) {
  const button = h("button", { type: "button", class: "toggle", "aria-pressed": String(on), title }, text);
  button.addEventListener("click", () => onchange(button.getAttribute("aria-pressed") !== "true"));
  return button;
}

/** A group of radio buttons that looks like a bar. options: [value, text]. */
export function makeChoice(legend, name, options, value, onchange) {
  return h("fieldset", { class: "bar" }, h("legend", { class: "hidden-text" }, legend),
    options.map(([key, text]) => h("label", {},
      h("input", { type: "radio", name, value: key, checked: key === value, onchange: () => onchange(key) }),
      h("span", {}, text))));
}

/** 0.031 -> "3.1 %"; only 0 is shown as 0 %. */
export function formatPercent(share) {
  if (share > 0 && share < 0.001) return "under 0.1 %";
  return `${(100 * share).toFixed(1).replace(/\.0$/, "")} %`;
}

/** With at least two digits, and enough that it differs from 0 and 1. */
export function formatProbability(value) {
  const gap = Math.min(value, 1 - value);
  const digits = gap <= 0 ? 2 : Math.min(12, Math.max(2, 1 - Math.floor(Math.log10(gap))));
  return value.toFixed(digits).replace(/(\.\d\d\d*?)0+$/, "$1");
}

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
