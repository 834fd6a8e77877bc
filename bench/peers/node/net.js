// Node.js: net with a "data" callback for echo, the http module for HTTP.
"use strict";
const http = require("http");
const net = require("net");

const servers = {
  echo: () =>
    net.createServer({ noDelay: true }, (socket) => {
      socket.on("data", (data) => socket.write(data));
      socket.on("error", () => socket.destroy());
    }),
  http: () =>
    http.createServer((request, response) => {
      response.writeHead(200, { "Content-Type": "text/plain", "Content-Length": 13 });
      response.end("Hello, World!");
    }),
};

const server = servers[process.argv[2]]();
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
