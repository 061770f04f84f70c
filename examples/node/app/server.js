// Answers every request with its version. Listens on $PORT, and ends in order on SIGTERM.
const http = require("http");
const { version } = require("./package.json");

const server = http.createServer((_request, response) => response.end(`hello from ${version}\n`));
server.listen(process.env.PORT || 8080);
process.on("SIGTERM", () => server.close(() => process.exit(0)));
