"""Asks the image's health check (its path is the argument) about servers that are well, unwell, silent and absent."""

import http.server
import os
import socket
import subprocess
import sys
import threading


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200 if self.path == "/livez" else 503)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def alert(server):
    # As a server that speaks TLS answers what is no TLS: alert, fatal, decode_error.
    while True:
        stream, _ = server.accept()
        stream.recv(4096)
        stream.sendall(bytes([21, 3, 3, 0, 2, 2, 50]))
        stream.close()


def ask(port, *arguments):
    environment = {**os.environ, "TALLYMARK_LISTEN": f"0.0.0.0:{port}"}
    return subprocess.run([sys.argv[1], *arguments], env=environment, capture_output=True, text=True, timeout=10)


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    silent = socket.create_server(("127.0.0.1", 0))
    encrypted = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=alert, args=[encrypted], daemon=True).start()
    absent = socket.create_server(("127.0.0.1", 0))
    absent_port = absent.getsockname()[1]
    absent.close()
    for what, port, arguments, code, says in [
        ("a server that is well", server.server_port, [], 0, ""),
        ("a server that is not ready", server.server_port, ["/readyz"], 1, "503"),
        ("a server that says nothing", silent.getsockname()[1], [], 1, "/livez"),
        ("a server that speaks TLS", encrypted.getsockname()[1], [], 0, ""),
        ("whether a server that speaks TLS is ready", encrypted.getsockname()[1], ["/readyz"], 1, "TLS"),
        ("no server", absent_port, [], 1, "refused"),
    ]:
        answer = ask(port, *arguments)
        if answer.returncode != code or says not in answer.stdout:
            sys.exit(f"{what}: exit code {answer.returncode} instead of {code}, says {answer.stdout!r}")


main()
