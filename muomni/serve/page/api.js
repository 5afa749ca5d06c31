// The server's API as the page uses it. Failures become `ApiError`s whose message is for people.

import { serverEvents } from "./server-events.js";

const KEY = "muomni-api-key";
const LOST = "The connection to the server was lost.";

export class ApiError extends Error {
  /** `status` is HTTP's; 0 if the connection failed. */
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** The API key, kept as long as the tab is open. */
export const apiKey = () => sessionStorage.getItem(KEY) ?? "";
export function setApiKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

async function failure(response) {
  let said = "";
  try {
    said = (await response.json()).error?.message ?? "";
  } catch {
    // not the API's shape, for example from a proxy
  }
  if (response.status === 401) {
    window.dispatchEvent(new Event("key-needed"));
    return new ApiError(said || "The server asks for an API key; give it in the settings.", 401);
  }
  said = said.replace(/^messages\[\S+: /, ""); // where in the request it stands; the page shows it there
  const wait = response.headers.get("Retry-After");
  if (response.status === 429) {
    return new ApiError(`The server is busy. Try again${wait ? ` in ${wait} s` : " in a moment"}.`, 429);
  }
  return new ApiError(said || `The server answered ${response.status} ${response.statusText}.`, response.status);
}

async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (apiKey()) headers.Authorization = `Bearer ${apiKey()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    throw error.name === "AbortError" ? error : new ApiError("There is no connection to the server. Is it running?");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

/** The models, as the API lists them. */
export async function models() {
  return (await (await call("v1/models")).json()).data;
}

/** The chunks of a streamed answer. */
export async function* chat(request, signal) {
  const response = await call("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request),
    signal,
  });
  try {
    for await (const data of serverEvents(response)) {
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.message, 500);
      yield chunk;
    }
  } catch (error) {
    throw error.name === "AbortError" || error instanceof ApiError ? error : new ApiError(LOST);
  }
}

/** The address of the realtime WebSocket, and its subprotocols, which carry the key as browsers cannot send headers. */
export function realtime(model) {
  const url = new URL("v1/realtime", document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  url.searchParams.set("model", model);
  const protocols = ["realtime"];
  if (apiKey()) protocols.push(`openai-insecure-api-key.${apiKey()}`);
  return new WebSocket(url, protocols);
}
