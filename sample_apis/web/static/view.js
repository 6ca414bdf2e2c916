// What the pages are made of. Text is only ever set as text, so no answer of a server can become markup.

import { scopesByResource, timeLeft } from "./tokens.js";

export const byId = (id) => document.getElementById(id);

/** Make an element. Properties are set on it; children are elements or text. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** Show a message, with a button where something can be done about it. Without a text, take the last one away. */
export function showNotice(text, { bad = false, action } = {}) {
  const notice = byId("notice");
  notice.className = bad ? "notice bad" : "notice";
  notice.replaceChildren(text ?? "");
  if (action) {
    notice.append(element("button", { className: "second", onclick: action.run }, action.label));
  }
  notice.hidden = !text;
}

/** Have a screen reader say something that others see. */
export function speak(text) {
  byId("spoken").textContent = text;
}

/** Return the card of one call: what it means in words, then the request and the answer as they were. */
export function callCard(title, { request, answer, status, meaning }, remark) {
  const outcome = status ? answer.line.replace("HTTP/1.1 ", "") : "No answer";
  const heading = element("h3", {}, title, element("span", { className: `badge ${tone(status)}` }, outcome));
  const card = element("article", { className: "card call" }, heading, element("p", { className: "meaning" }, meaning));
  if (remark) {
    card.append(element("p", { className: "faint" }, remark));
  }
  const messages = element("div", { className: "messages" }, message("Request", request));
  if (answer) {
    messages.append(message("Answer", answer));
  }
  card.append(element("details", { open: true }, element("summary", {}, "Request and answer"), messages));
  return card;
}

function tone(status) {
  return status >= 200 && status < 300 ? "good" : status === 503 || status === 403 ? "warn" : "bad";
}

function message(title, { line, headers, body }) {
  const lines = headers.flatMap(([name, value]) => [element("b", {}, `${name}: `), `${value}\n`]);
  const text = element("pre", { tabIndex: 0 }, element("strong", {}, line), "\n", ...lines, body ? `\n${body}` : "");
  text.setAttribute("role", "region"); // it scrolls, so it can be reached by keyboard and has a name
  text.setAttribute("aria-label", title);
  return element("section", {}, element("h4", {}, title), text);
}

/** Return what an access token says: issuer, audience, scopes by resource, and a countdown. */
export function tokenPanel(claims) {
  const audience = [claims.aud].flat();
  const rows = [
    ["Audience", codes(audience)],
    ["Issuer", codes([claims.iss])],
    ["Scopes", scopeList(claims.scope)],
    ["Time left", countdown(claims)],
  ];
  const list = element("dl", {}, ...rows.map(([name, value]) => pair(name, value)));
  const all = element("pre", { tabIndex: 0 }, JSON.stringify(claims, null, 2));
  const details = element("details", {}, element("summary", {}, "All claims"), all);
  const panel = element("article", { className: "token" }, list, details);
  panel.setAttribute("aria-label", `Token for ${audience[0]}`);
  return panel;
}

function pair(name, value) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, ...[value].flat()));
}

function codes(values) {
  return values.map((value) => element("code", {}, value));
}

function scopeList(scope) {
  const groups = scopesByResource(scope).map(([resource, actions]) =>
    element("li", {}, element("span", { className: "resource" }, resource),
      ...actions.map((action) => element("span", { className: "chip" }, action))));
  return groups.length ? element("ul", { className: "scopes" }, ...groups) : "none";
}

function countdown({ iat, exp }) {
  const words = element("span", { className: "time-left" });
  const bar = element("progress", { max: exp - iat });
  bar.setAttribute("aria-hidden", "true"); // the words say the same
  const tick = () => {
    words.textContent = timeLeft(exp);
    bar.value = Math.max(0, exp - Date.now() / 1000);
  };
  tick();
  const timer = setInterval(() => (words.isConnected ? tick() : clearInterval(timer)), 1000);
  return [words, bar];
}
