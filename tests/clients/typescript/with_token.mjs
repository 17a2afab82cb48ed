// Stands before a gateway's door and adds its token, for clients that cannot send one: with_token.mjs GATEWAY_ADDRESS TOKEN_FILE
//
// Prints the address on which it listens. Whatever else a request says arrives as it was sent; only its own address is replaced by the gateway's.

import { readFileSync } from 'node:fs';
import http from 'node:http';

const [gateway, tokenFile] = process.argv.slice(2);
const [host, port] = gateway.split(':');
const authorization = `Bearer ${readFileSync(tokenFile, 'utf8').trim()}`;

const server = http.createServer((request, response) => {
    const own = `:${server.address().port}`;
    const ours = (value) => value?.replace(new RegExp(`^(https?://)?(127\\.0\\.0\\.1|localhost)${own}$`), `$1$2:${port}`);
    const headers = { ...request.headers, authorization, host: ours(request.headers.host) };
    if (headers.origin) headers.origin = ours(headers.origin);
    const onward = http.request({ host, port, method: request.method, path: request.url, headers }, (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
    });
    // A caller that hangs up is gone for the gateway too.
    response.on('close', () => onward.destroy());
    onward.on('error', () => response.destroy());
    request.pipe(onward);
});
server.listen(0, '127.0.0.1', () => console.log(`127.0.0.1:${server.address().port}`));
