// What an access token says. It is read to be shown, never to decide anything: that is for the API alone.

/** Return the claims of a JWT, not validated. */
export function claimsOf(token) {
  const payload = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
  const bytes = Uint8Array.from(atob(payload), (character) => character.codePointAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
}

/** Return so much of a token that two can be told apart, and neither can be used. */
export function shortened(token) {
  return `${token.slice(0, 6)}…${token.slice(-4)}`;
}

/** Return the scopes as [resource, actions] pairs: `read:contacts` is the action `read` of `contacts`. */
export function scopesByResource(scope = "") {
  const groups = new Map();
  for (const one of scope.split(" ").filter(Boolean)) {
    const [action, resource = "identity"] = one.split(":");
    groups.set(resource, [...(groups.get(resource) ?? []), action]);
  }
  return [...groups];
}

/** Return how long a token is still good, in words; `exp` and `now` are in seconds. In its last second, that is 1 s. */
export function timeLeft(exp, now = Date.now() / 1000) {
  const seconds = Math.ceil(exp - now);
  const size = Math.abs(seconds);
  const parts = [[Math.floor(size / 3600), "h"], [Math.floor(size / 60) % 60, "min"], [size % 60, "s"]];
  const shown = parts.slice(Math.max(0, parts.findIndex(([amount]) => amount > 0)));
  const words = size ? shown.map(([amount, unit]) => `${amount} ${unit}`).join(" ") : "0 s";
  return seconds > 0 ? `${words} left` : `expired ${words} ago`;
}
