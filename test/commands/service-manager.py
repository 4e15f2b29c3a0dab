"""Does for a program what systemd does: holds its listening sockets and starts it anew when it ends, and prints what it is told.

Usage: service-manager.py SOCKETS PROGRAM ARGUMENT...
Prints `port N` for each socket, `started PID`, `told TEXT`, `ended CODE`. A line `restart` on standard input sends SIGTERM.
"""
import os, socket, subprocess, sys, tempfile, threading

sockets = []
for _ in range(int(sys.argv[1])):
    listening = socket.socket()
    listening.bind(('127.0.0.1', 0))
    listening.listen(1024)
    print('port', listening.getsockname()[1], flush=True)
    sockets.append(listening)

folder = tempfile.mkdtemp()
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(folder + '/notify')
child = None


def hear():
    while True:
        # Whatever file descriptor comes with it (the barrier of systemd-notify) is closed by not being taken.
        for line in notify.recv(4096).decode().splitlines():
            print('told', line, flush=True)


def obey():
    for line in sys.stdin:
        if line.strip() == 'restart':
            child.terminate()
    child.kill()
    os._exit(0)


def hand_over():
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(sockets)))
    # First out of the way of the places that they are to have.
    for at, fd in enumerate([os.dup(each.fileno()) for each in sockets]):
        os.dup2(fd, 100 + at)
    for at in range(len(sockets)):
        os.dup2(100 + at, 3 + at)


threading.Thread(target=hear, daemon=True).start()
threading.Thread(target=obey, daemon=True).start()
while True:
    env = {**os.environ, 'NOTIFY_SOCKET': folder + '/notify', 'WATCHDOG_USEC': '300000'}
    os.environ.update(env)
    child = subprocess.Popen(sys.argv[2:], preexec_fn=hand_over, close_fds=False, stdout=subprocess.DEVNULL)
    print('started', child.pid, flush=True)
    code = child.wait()
    print('ended', code, flush=True)
    if code != 0:
        break
