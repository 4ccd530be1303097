// Node's HTTP clients, one by one: prints a JSON line for each URL with what
// the client got, or what it says went wrong.
//
//     clients.mjs NAME URL...
import { createRequire } from "node:module";
import http from "node:http";
import https from "node:https";

// The modules are installed beside this folder's own place, see
// integration/node.
const require = createRequire(process.env.CLIENTS_MODULES + "/");
const proxy = process.env.HTTPS_PROXY;

async function fetched(response) {
  return { status: response.status, body: await response.text() };
}

function requested(module, url, agent) {
  return new Promise((resolve, reject) => {
    module.get(url, { agent }, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (chunk) => (body += chunk));
      response.on("end", () => resolve({ status: response.statusCode, body }));
      response.on("error", reject);
    }).on("error", reject);
  });
}

const clients = {
  // Node's own fetch; NODE_USE_ENV_PROXY makes it see the variables.
  fetch: async (url) => fetched(await fetch(url)),
  undici: async (url) => {
    const { fetch, ProxyAgent } = require("undici");
    return fetched(await fetch(url, { dispatcher: new ProxyAgent(proxy) }));
  },
  "undici-env": async (url) => {
    const { fetch, EnvHttpProxyAgent } = require("undici");
    return fetched(await fetch(url, { dispatcher: new EnvHttpProxyAgent() }));
  },
  "https-proxy-agent": (url) => {
    const { HttpsProxyAgent } = require("https-proxy-agent");
    return requested(url.startsWith("https:") ? https : http, url, new HttpsProxyAgent(proxy));
  },
  websocket: (url) => {
    const { WebSocket, ProxyAgent } = require("undici");
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(url, { dispatcher: new ProxyAgent(proxy) });
      socket.onopen = () => socket.send("hello");
      socket.onmessage = (event) => {
        socket.close();
        resolve({ status: 101, body: event.data });
      };
      socket.onerror = (event) => reject(event.error ?? new Error("WebSocket failed"));
    });
  },
};

// words of an error and of all that caused it.
function words(error) {
  if (!error) return "";
  const causes = [error.cause, ...(error.errors ?? [])].filter(Boolean).map(words);
  return [`${error.name}: ${error.message}`, ...causes].join("; ");
}

const [name, ...urls] = process.argv.slice(2);
for (const url of urls) {
  let answer;
  try {
    answer = await clients[name](url);
  } catch (error) {
    answer = { error: words(error) };
  }
  console.log(JSON.stringify(answer));
}
process.exit(0); // keep-alive would hold the process
