"""What `helm test` runs, in the exporter's image: python3 - HOST PORT. Asks every exporter behind the Service."""

import http.client
import socket
import sys


def problem(address: str, port: int) -> str:
    """What is wrong with the exporter at an address; empty when it publishes its GPUs."""
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        lines = answer.read().decode(errors="replace").splitlines()
    except (OSError, http.client.HTTPException) as error:
        return f"does not answer: {error}"
    finally:
        connection.close()
    up = [line for line in lines if line.startswith("nvidia_gpu_up{")]
    if not up:
        return f"answers {answer.status} without nvidia_gpu_up: is it Pegel's GPU exporter?"
    if not any(line.endswith((" 1", " 1.0")) for line in up):
        return "finds no driver or no working GPU: see its log, and gpu.runtimeClassName in the chart's values"
    return ""


def main(host: str, port: int) -> int:
    """0 when every exporter publishes its GPUs, else 1; a line for each."""
    try:
        found = sorted({info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
    except socket.gaierror:
        print(
            f"{host}: no exporter is ready. Does a node have the label of gpu.nodeLabels? kubectl get daemonset,nodes"
        )
        return 1
    problems = {address: problem(address, port) for address in found}
    for address, text in problems.items():
        print(f"{address}: {text or 'publishes its GPUs'}")
    return int(any(problems.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
