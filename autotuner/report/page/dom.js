"use strict";
// Elements and numbers. Texts of a run become text nodes, never markup.

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";
const SAFE_ATTRIBUTES = /^(class|id|href|open|scope|rowspan|tabindex|role|hidden|aria-[a-z]+|data-[a-z]+)$/;

function byId(id) {
  return document.getElementById(id);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function html(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG_NAMESPACE, tag), attributes, children);
}

// An element as the server sends it: [tag, attributes, ...children]. Links lead nowhere but into this page.
function fromData(data) {
  if (typeof data === "string") return document.createTextNode(data);
  const [tag, attributes, ...children] = data;
  const element = document.createElement(/^[a-z][a-z0-9]*$/.test(tag) && tag !== "script" ? tag : "span");
  for (const [name, value] of Object.entries(attributes)) {
    if (SAFE_ATTRIBUTES.test(name) && (name !== "href" || value.startsWith("#"))) element.setAttribute(name, value);
  }
  element.append(...children.map(fromData));
  return element;
}

function number(value, digits = 3) {
  if (value === null || value === undefined || !isFinite(value)) return "–";
  if (value === 0) return "0";
  const rounded = Number(value.toPrecision(digits));
  if (Math.abs(rounded) >= 10 ** (digits - 1)) return rounded.toLocaleString("en", { maximumFractionDigits: 0 });
  return rounded.toLocaleString("en", { maximumSignificantDigits: digits });
}

function duration(seconds) {
  if (seconds === null || seconds === undefined || !isFinite(seconds)) return "–";
  return seconds < 1 ? `${number(seconds * 1e3)} ms` : `${number(seconds)} s`;
}

function percent(share) {
  if (share === null || share === undefined) return "–";
  const digits = share > 0.99 && share < 1 ? 1 : 0;
  return `${(100 * share).toFixed(digits)}%`;
}

function interval(low, high, format) {
  if (low === null || low === undefined) return "";
  return ` (${format(low)} to ${high === null || high === undefined ? "?" : format(high)})`;
}

function copyText(text, button) {
  const done = () => {
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  };
  const select = () => { // pages opened from disk have no clipboard of their own
    const area = html("textarea", { class: "offscreen", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    done();
  };
  if (navigator.clipboard && window.isSecureContext) navigator.clipboard.writeText(text).then(done, select);
  else select();
}

function copyable(text, label) {
  const pre = html("pre", { tabindex: 0, "aria-label": label, "data-copy": "" }, text);
  return addCopyButton(pre, html("div", {}, pre)).parentElement;
}

function addCopyButton(pre) {
  const holder = html("div", { class: "copyable" });
  pre.replaceWith(holder);
  const button = html("button", { type: "button", onclick: () => copyText(pre.textContent, button) }, "copy");
  holder.append(pre, button);
  return holder;
}
