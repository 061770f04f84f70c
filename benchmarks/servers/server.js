// A plain node server: its version to everyone; on TERM it finishes what it has begun.
const http = require('http');
const body = process.env.EMPTYBOX_VERSION + '\n';
const server = http.createServer((request, response) => {
  response.setHeader('Content-Length', Buffer.byteLength(body));
  response.end(body);
});
process.on('SIGTERM', () => server.close(() => process.exit(0)));
server.listen(process.env.LISTEN_FDS ? { fd: 3 } : { port: Number(process.env.PORT), host: '127.0.0.1' });
