"""A peer for the specs of TLS on Python's ssl: tls_peer.py server|client FOLDER MODE [PORT].

A server prints its port. Modes: echo (until the end, and ends cleanly), cut (a line, and the socket closes without
close_notify), old (TLS 1.1), big (sends and reads 5 MB at once; prints what it read), client certificates (certificate).
"""
import socket
import ssl
import sys
import threading

role, folder, mode = sys.argv[1:4]


def context():
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if role == "server" else ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(folder + "/ca.pem")
    if role == "server":
        made.load_cert_chain(folder + "/server.pem", folder + "/server.key")
    if mode == "certificate":
        if role == "server":
            made.verify_mode = ssl.CERT_REQUIRED
        else:
            made.load_cert_chain(folder + "/client.pem", folder + "/client.key")
    if mode == "old":
        made.minimum_version = ssl.TLSVersion.TLSv1_1
        made.maximum_version = ssl.TLSVersion.TLSv1_1
        made.set_ciphers("DEFAULT@SECLEVEL=0")
    else:
        made.set_alpn_protocols(["echo", "other"])
    return made


def connected():
    if role == "client":
        plain = socket.create_connection(("127.0.0.1", int(sys.argv[4])))
        return context().wrap_socket(plain, server_hostname="a.example")
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    return context().wrap_socket(listener.accept()[0], server_side=True)


def echo(stream):
    while data := stream.recv(65536):
        stream.sendall(data)
    stream.unwrap()


def big(stream):
    blob = b"0123456789" * 500000
    writer = threading.Thread(target=stream.sendall, args=(blob,))
    writer.start()
    read = 0
    while read < len(blob):
        read += len(stream.recv(65536))
    writer.join()
    stream.unwrap()
    print("read", read, flush=True)


def certificate(stream):
    stream.sendall((str(stream.getpeercert()["subject"][0][0][1]) + "\n").encode())
    stream.unwrap()


def client_echo(stream):
    stream.sendall(b"from python\n")
    print(stream.recv(100).decode(), stream.version(), stream.selected_alpn_protocol(), flush=True)
    stream.unwrap()


try:
    connection = connected()
    if mode == "echo":
        (echo if role == "server" else client_echo)(connection)
    elif mode == "cut":
        connection.sendall(b"a line\n")
        connection.close()
    elif mode == "big":
        big(connection)
    elif mode == "certificate":
        certificate(connection)
except (OSError, ssl.SSLError) as error:
    print(type(error).__name__, getattr(error, "reason", None), flush=True)
