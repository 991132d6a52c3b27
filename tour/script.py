"""The steps of the tour: each transcript of the chapter, the command here, and what must come of it.

In a command, {name} stands for what `Stage.learn` found: {kubia} is the ClusterIP of the Service kubia,
{kubia-loadbalancer-external} its external address, {pod1} the first kubia pod, {node} the node's address.
`expected.py` says how expected lines are written. A step without expected lines only changes something.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One command. `book` is that of the chapter, `host` where the other one runs; "" is the tour's folder.

    `expected` has the lines that must be in the output. `note` says what differs from the book, and why.
    With `missing`, the step is not carried out, and this says what is not there yet.
    """

    book: str
    command: str
    expected: str = ""
    host: str = ""
    note: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Section:
    """A section of the chapter: its title, what it is about, and its steps."""

    title: str
    about: str
    steps: tuple[Step, ...]


def create(*files: str, note: str = "") -> Step:
    """Return the step that creates objects: their files are copied to the folder that kproxy follows."""
    book = "\n".join(f"kubectl create -f {file}" for file in files)
    return Step(book, f"cp {' '.join(f'chapter/{file}' for file in files)} services/", note=note)


REQUESTS = "for i in $(seq 20); do curl -s {}; done | sort | uniq -c"

EXTERNAL_IPS = (
    """-o jsonpath='{.items[*].status.addresses[?(@.type=="ExternalIP")].address}' | tr ' ' '\\n'"""
)
POD_IPS = """-o jsonpath="{range .items[*]}{.metadata.name}--{.status.podIP} {end}" | tr ' ' '\\n'"""

SERVICES = Section(
    "Services",
    "A Service is one address for all pods that do the same. It exists in the rules of each node only.",
    (
        create(
            "kubia-svc.yaml",
            note="kproxy follows a folder: an object exists while its file is there.",
        ),
        Step(
            "kubectl get svc",
            "kproxy get svc",
            """NAME         TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)         AGE
kubernetes   ClusterIP   10.66.0.1    <none>        443/TCP         *
kubia        ClusterIP   10.66.*      <none>        80/TCP,90/TCP   *""",
        ),
        Step(
            "kubectl exec kubia-zhg6k -- curl -s 10.66.13.240:80",
            "curl -s {kubia}:80",
            "You've hit kubia-* on default mux",
            host="{pod1}",
        ),
        Step(
            "kubectl exec kubia-zhg6k -- curl -s 10.66.13.240:90",
            "curl -s {kubia}:90",
            "You've hit kubia-* on mux1",
            host="{pod1}",
        ),
        Step(
            "sessionAffinity: ClientIP",
            REQUESTS.format("{kubia}"),
            "20 You've hit kubia-* on default mux",
            host="{pod2}",
            note="The same client reaches the same pod each time.",
        ),
        Step(
            "root@kubia-zhg6k:/app# ping 10.66.13.240",
            "busybox ping -c 2 -W 1 {kubia}",
            "2 packets transmitted, 0 packets received, 100% packet loss",
            host="{pod1}",
            note="No interface has the address, so no host answers a ping.",
        ),
    ),
)

VARIABLES = Section(
    "Services in environment variables",
    "A pod gets the variables of the Services that exist when it starts. The present pods are older than the "
    "Service, so one of them is deleted, and its ReplicationController makes another one.",
    (
        Step(
            "kubectl delete pod kubia-bp5xc",
            "netns-lab delete pod {pod1}",
            "pod kubia-* is removed\npod kubia-* is started",
            note="kproxy starts no pods. In this lab, netns-lab does; on a machine, for example podman.",
        ),
        Step(
            "kubectl exec kubia-zhg6k -- env",
            "env | grep ^KUB | sort",
            """KUBERNETES_PORT=tcp://10.66.0.1:443
KUBERNETES_PORT_443_TCP=tcp://10.66.0.1:443
KUBERNETES_PORT_443_TCP_ADDR=10.66.0.1
KUBERNETES_PORT_443_TCP_PORT=443
KUBERNETES_PORT_443_TCP_PROTO=tcp
KUBERNETES_SERVICE_HOST=10.66.0.1
KUBERNETES_SERVICE_PORT=443
KUBERNETES_SERVICE_PORT_HTTPS=443
KUBIA_PORT=tcp://{kubia}:80
KUBIA_PORT_80_TCP=tcp://{kubia}:80
KUBIA_PORT_80_TCP_ADDR={kubia}
KUBIA_PORT_80_TCP_PORT=80
KUBIA_PORT_80_TCP_PROTO=tcp
KUBIA_PORT_90_TCP=tcp://{kubia}:90
KUBIA_PORT_90_TCP_ADDR={kubia}
KUBIA_PORT_90_TCP_PORT=90
KUBIA_PORT_90_TCP_PROTO=tcp
KUBIA_SERVICE_HOST={kubia}
KUBIA_SERVICE_PORT=80
KUBIA_SERVICE_PORT_HTTP_DEFAULT=80
KUBIA_SERVICE_PORT_HTTP_MUX1=90""",
            host="{pod3}",
            note="`kproxy env POD` prints them.",
        ),
    ),
)

NAMES = Section(
    "Services in DNS",
    "The chapter's cluster has pods of kube-dns. kproxy itself is the name server of the pods.",
    (
        Step(
            "root@kubia-zhg6k:/app# cat /etc/resolv.conf",
            "cat /etc/resolv.conf",
            """search default.svc.cluster.local svc.cluster.local cluster.local
nameserver 10.66.0.10
options ndots:5""",
            host="{pod3}",
            note="`kproxy dns resolv-conf` prints it.",
        ),
        Step(
            "root@kubia-zhg6k:/app# curl kubia.default.svc.cluster.local:$KUBIA_SERVICE_PORT_HTTP_MUX1",
            "curl -s kubia.default.svc.cluster.local:$KUBIA_SERVICE_PORT_HTTP_MUX1",
            "You've hit kubia-* on mux1",
            host="{pod3}",
        ),
        Step(
            "root@kubia-zhg6k:/app# curl kubia.default:$KUBIA_SERVICE_PORT_HTTP_MUX1",
            "curl -s kubia.default:$KUBIA_SERVICE_PORT_HTTP_MUX1",
            "You've hit kubia-* on mux1",
            host="{pod3}",
        ),
        Step(
            "root@kubia-zhg6k:/app# curl kubia:$KUBIA_SERVICE_PORT_HTTP_MUX1",
            "curl -s kubia:$KUBIA_SERVICE_PORT_HTTP_MUX1",
            "You've hit kubia-* on mux1",
            host="{pod3}",
        ),
    ),
)

EXTERNAL = Section(
    "Services outside the cluster",
    "A Service leads to endpoints, and these may be anywhere.",
    (
        Step(
            "kubectl describe svc kubia",
            "kproxy describe svc kubia",
            """Name: kubia
Namespace: default
Labels: <none>
Annotations: <none>
Selector: app=kubia
Type: ClusterIP
IP: {kubia}
Port: http-default 80/TCP
TargetPort: http-default/TCP
Endpoints: 10.244.*:8080,10.244.*:8080,10.244.*:8080
Port: http-mux1 90/TCP
TargetPort: http-mux1/TCP
Endpoints: 10.244.*:8090,10.244.*:8090,10.244.*:8090
Session Affinity: ClientIP""",
        ),
        Step(
            "kubectl get endpoints kubia",
            "kproxy get endpoints kubia",
            """NAME ENDPOINTS AGE
kubia 10.244.*:8080,10.244.*:8080,10.244.*:8080 + 3 more... *""",
        ),
        Step(
            "kubectl describe endpoints kubia",
            "kproxy describe endpoints kubia",
            """Name: kubia
Namespace: default
Labels: <none>
Annotations: <none>
Subsets:
Addresses: 10.244.*,10.244.*,10.244.*
NotReadyAddresses: <none>
Ports:
Name Port Protocol
http-default 8080 TCP
http-mux1 8090 TCP""",
        ),
        create("external-service.yaml", "external-service-endpoints.yaml"),
        Step(
            "root@kubia-zhg6k:/app# curl -v 10.66.10.171",
            "curl -sv {external-service} 2>&1",
            """* Connected to {external-service} ({external-service}) port 80**
< HTTP/1.1 301 Moved Permanently
< Location: https://{external-service}/""",
            host="{pod1}",
            note="Two hosts outside the lab's cluster have the addresses of the book's endpoints.",
        ),
        create("external-service-externalname.yaml"),
        Step(
            "root@kubia-zhg6k:/app# curl external-service-externalname/get",
            "curl -s external-service-externalname/get",
            "You've hit httpbin",
            host="{pod1}",
            note="The lab has a host with this name, and a name server that knows it, which kproxy asked.",
        ),
        Step(
            "root@kubia-zhg6k:/app# curl external-service-externalname.default.svc.cluster.local/get",
            "curl -s external-service-externalname.default.svc.cluster.local/get",
            "You've hit httpbin",
            host="{pod1}",
        ),
    ),
)

NODE_PORT = Section(
    "A port on each node",
    "A Service of type NodePort has a port on all nodes, through which clients outside reach it. The book "
    "first opens it in the firewall of its cloud; kproxy filters nothing.",
    (
        create("kubia-svc-nodeport.yaml"),
        Step(
            "kubectl get svc kubia-nodeport",
            "kproxy get svc kubia-nodeport",
            """NAME             TYPE       CLUSTER-IP   EXTERNAL-IP   PORT(S)        AGE
kubia-nodeport   NodePort   10.66.*      <none>        80:30123/TCP   *""",
        ),
        Step(
            f"kubectl get nodes {EXTERNAL_IPS}",
            f"kproxy get nodes {EXTERNAL_IPS}",
            "{node}",
        ),
        Step(
            "curl 35.229.134.91:30123",
            REQUESTS.format("{node}:30123"),
            "* You've hit kubia-* on default mux\n" * 3,
            host="outside",
            note="The book has three nodes; this tour has one.",
        ),
        Step(
            "root@kubia-zhg6k:/app# curl 10.66.5.6:80",
            "curl -s {kubia-nodeport}:80",
            "You've hit kubia-* on default mux",
            host="{pod1}",
        ),
    ),
)

LOAD_BALANCER = Section(
    "A load balancer",
    "The cloud of the book gives a Service of type LoadBalancer an address. Here kproxy takes it from "
    "`--load-balancer-pool`, and announces it in the node's network.",
    (
        create("kubia-svc-loadbalancer.yaml"),
        Step(
            "kubectl get svc kubia-loadbalancer",
            "kproxy get svc kubia-loadbalancer",
            """NAME                 TYPE           CLUSTER-IP   EXTERNAL-IP      PORT(S)        AGE
kubia-loadbalancer   LoadBalancer   10.66.*      192.168.77.1*   80:3*/TCP   *""",
        ),
        Step(
            "ping 35.221.253.22",
            "busybox ping -c 2 -i 0.2 {kubia-loadbalancer-external}",
            "2 packets transmitted, 2 packets received, 0% packet loss",
            host="outside",
        ),
        Step(
            "http 35.221.253.22",
            "curl -si {kubia-loadbalancer-external}",
            "HTTP/1.1 200 OK\nContent-Type: text/plain; charset=utf-8\nYou've hit kubia-* on default mux",
            host="outside",
        ),
        Step(
            "kubectl describe svc kubia-loadbalancer",
            "kproxy describe svc kubia-loadbalancer",
            """Name: kubia-loadbalancer
Namespace: default
Labels: <none>
Annotations: <none>
Selector: app=kubia
Type: LoadBalancer
IP: {kubia-loadbalancer}
LoadBalancer Ingress: {kubia-loadbalancer-external}
Port: <unset> 80/TCP
TargetPort: 8080/TCP
NodePort: <unset> 3*/TCP
Endpoints: 10.244.*:8080,10.244.*:8080,10.244.*:8080
Session Affinity: None
External Traffic Policy: Cluster""",
        ),
    ),
)

CERTIFICATE = (
    "openssl req -new -x509 -sha256 -key tls.key -out tls.cert -days 3650 -subj /CN=kubia.example.com"
)
SECRET = (
    "printf 'apiVersion: v1\\nkind: Secret\\nmetadata: {name: tls-secret}\\ntype: kubernetes.io/tls\\n"
    "data: {tls.crt: %s, tls.key: %s}\\n' $(base64 -w0 tls.cert) $(base64 -w0 tls.key) "
    "> services/tls-secret.yaml"
)
INGRESS = Section(
    "Ingress",
    "An Ingress leads requests for names and paths to Services, all on one address. `kproxy run --gateway` "
    "serves it with HAProxy, which sends requests to the pods themselves.",
    (
        create("kubia-ingress.yaml"),
        Step(
            "kubectl get ingress",
            "kproxy get ingress",
            "NAME CLASS HOSTS ADDRESS PORTS AGE\nkubia <none> kubia.example.com **80 *",
            note="A current kubectl shows the column CLASS. HAProxy listens on all addresses of the node.",
        ),
        Step(
            "echo '35.227.198.7 kubia.example.com' >> /etc/hosts\nhttp kubia.example.com",
            "curl -si --resolve kubia.example.com:80:{node} http://kubia.example.com/",
            "HTTP/1.1 200 OK\ncontent-type: text/plain; charset=utf-8\nYou've hit kubia-* on default mux",
            host="outside",
        ),
        create(
            "kubia-unhealthy.yaml",
            note="In the book the pods have become ill. Here another Service has a pod that answers 500 "
            'after five requests, and its Ingress has the annotation `kproxy.io/custom-http-errors: "500"`.',
        ),
        Step("", "netns-lab apply", "pod kubia-unhealthy-* is started"),
        Step(
            "http kubia.example.com    (the pods answer 500)",
            "curl -si --resolve ill.example.com:80:{node} http://ill.example.com/",
            "HTTP/1.1 502 Bad Gateway**",
            host="outside",
        ),
        Step("openssl genrsa -out tls.key 2048", "openssl genrsa -out tls.key 2048 2>&1"),
        Step(
            CERTIFICATE,
            CERTIFICATE,
        ),
        Step("kubectl create secret tls tls-secret --cert=tls.cert --key=tls.key", SECRET),
        Step("kubectl apply -f kubia-ingress-tls.yaml", "cp chapter/changed/kubia-ingress.yaml services/"),
        Step(
            "curl -k -v https://kubia.example.com/",
            "curl -skv --resolve kubia.example.com:443:{node} https://kubia.example.com/ 2>&1",
            """* ALPN** h2
* subject: CN=kubia.example.com
* issuer: CN=kubia.example.com
< HTTP/2 200
You've hit kubia-* on default mux""",
            host="outside",
        ),
    ),
)

READINESS = Section(
    "Pods that are ready",
    "A pod with a readiness probe is an endpoint while its probe succeeds. Here the probe is `ls "
    "/var/ready`. In a cluster a kubelet carries it out; here kproxy does.",
    (
        Step(
            "kubectl edit rs kubia    (add the probe to the template)",
            "cp chapter/changed/kubia-rc.yaml services/",
        ),
        Step(
            "kubectl delete pod kubia-bp5xc kubia-tt8rl kubia-zssz2",
            "netns-lab delete pod {pod1} {pod2} {pod3}",
            "pod kubia-* is removed\n" * 3 + "pod kubia-* is started\n" * 3,
        ),
        Step(
            "kubectl get pods --show-labels",
            "kproxy get pods --show-labels",
            """NAME          READY   STATUS    RESTARTS    AGE   LABELS
kubia-*   0/1     Running   *   *   app=kubia
kubia-*   0/1     Running   *   *   app=kubia
kubia-*   0/1     Running   *   *   app=kubia""",
        ),
        Step(
            "curl 34.80.233.40:30123    (no pod is ready)",
            "curl -sS {node}:30123 2>&1",
            "curl: (7) Failed to connect to {node} port 30123 **",
            host="outside",
        ),
        Step("kubectl exec kubia-wpk4k -- touch /var/ready", "touch /var/ready", host="{pod3}"),
        Step(
            "curl 34.80.233.40:30123    (seven times)",
            REQUESTS.format("{node}:30123"),
            "20 You've hit {pod3} on default mux",
            host="outside",
            note="All requests go to the pod that is ready.",
        ),
        Step(
            "kubectl describe pod kubia-m7xnj",
            "kproxy describe pod {pod1}",
            """Name: {pod1}
Namespace: default
** Readiness probe failed: ls: cannot access '/var/ready': No such file or directory""",
        ),
    ),
)

HEADLESS = Section(
    "Headless Services",
    "A headless Service has no address. Its name leads to the addresses of its pods.",
    (
        create("kubia-svc-headless.yaml"),
        Step(
            "kubectl get service",
            "kproxy get service",
            """NAME                            TYPE           CLUSTER-IP   EXTERNAL-IP    PORT(S)         AGE
external-service                ClusterIP      10.66.*      <none>         80/TCP          *
external-service-externalname   ExternalName   <none>       httpbin.org    80/TCP          *
kubernetes                      ClusterIP      10.66.0.1    <none>         443/TCP         *
kubia                           ClusterIP      {kubia}      <none>         80/TCP,90/TCP   *
kubia-headless                  ClusterIP      None         <none>         80/TCP          *
kubia-loadbalancer              LoadBalancer   10.66.*      192.168.77.1*  80:3*/TCP       *
kubia-nodeport                  NodePort       10.66.*      <none>         80:30123/TCP    *""",
        ),
        Step(
            "kubectl describe service kubia-headless",
            "kproxy describe service kubia-headless",
            """Name: kubia-headless
Namespace: default
Labels: <none>
Annotations: <none>
Selector: app=kubia
Type: ClusterIP
IP: None
Port: <unset> 80/TCP
TargetPort: 8080/TCP
Endpoints: 10.244.*:8080
Session Affinity: None""",
        ),
        Step(
            "kubectl run dnsutils --image=tutum/dnsutils --generator=run-pod/v1 --command -- sleep infinity",
            "cp chapter/dnsutils.yaml services/",
        ),
        Step("", "netns-lab apply", "pod dnsutils is started"),
        Step("kubectl exec kubia-qsrhr -- touch /var/ready", "touch /var/ready", host="{pod2}"),
        Step(
            "kubectl get rs",
            "kproxy get rc",
            "NAME DESIRED CURRENT READY AGE\nkubia 3 3 2 *",
            note="The book has a ReplicaSet by now.",
        ),
        Step(
            "kubectl exec dnsutils nslookup kubia-headless",
            "nslookup kubia-headless",
            """Server: 10.66.0.10
Address: 10.66.0.10#53
Name: kubia-headless.default.svc.cluster.local
Address: 10.244.*
Name: kubia-headless.default.svc.cluster.local
Address: 10.244.*""",
            host="dnsutils",
            note="Two addresses: those of the pods that are ready.",
        ),
        Step(
            "kubectl exec dnsutils nslookup kubia",
            "nslookup kubia",
            """Server: 10.66.0.10
Address: 10.66.0.10#53
Name: kubia.default.svc.cluster.local
Address: {kubia}""",
            host="dnsutils",
        ),
        Step(
            "publishNotReadyAddresses: true",
            "cp chapter/changed/kubia-svc-headless.yaml services/",
        ),
        Step(
            "kubectl exec dnsutils nslookup kubia-headless",
            "nslookup kubia-headless",
            "Server: 10.66.0.10\n"
            + "Name: kubia-headless.default.svc.cluster.local\nAddress: 10.244.*\n" * 3,
            host="dnsutils",
            note="Three addresses, although only two pods are ready.",
        ),
    ),
)

TROUBLES = Section(
    "A Service that does not answer",
    "The chapter's checks, and the commands that make them.",
    (
        Step(
            f"kubectl get pods {POD_IPS}",
            f"kproxy get pods {POD_IPS}",
            "dnsutils--10.244.*\nkubia-*--10.244.*\nkubia-*--10.244.*\nkubia-*--10.244.*",
        ),
        Step(
            "kubectl get svc",
            "kproxy get svc kubia kubia-headless kubia-loadbalancer",
            """kubia                           ClusterIP      {kubia}      <none>         80/TCP,90/TCP   *
kubia-headless                  ClusterIP      None         <none>         80/TCP          *
kubia-loadbalancer              LoadBalancer   10.66.*      192.168.77.1*  80:3*/TCP       *""",
        ),
        Step(
            "root@kubia-wpk4k:/app# ping 10.66.13.240",
            "busybox ping -c 2 -W 1 {kubia}",
            "2 packets transmitted, 0 packets received, 100% packet loss",
            host="{pod3}",
        ),
        Step(
            "3. Does the readiness probe succeed? Otherwise the pod is no endpoint.",
            "kproxy get endpoints kubia-nodeport",
            "kubia-nodeport 10.244.*:8080,10.244.*:8080 *",
        ),
        Step(
            "6. Is it the Service's port, and not that of the pods?",
            "curl -sS {kubia-nodeport}:8080 2>&1",
            "curl: (7) Failed to connect to {kubia-nodeport} port 8080 **",
            host="{pod3}",
            note="A port that the Service does not have is refused at once.",
        ),
        Step(
            "1. - 8., in one command",
            "kproxy doctor kubia-nodeport",
            """KP003 ** 1 of 3 pods are not ready, and get no connections
Pod kubia-*: Readiness probe failed: ls: cannot access '/var/ready': No such file or directory""",
            note="kproxy's own command for the chapter's list.",
        ),
    ),
)

SECTIONS = (
    SERVICES,
    VARIABLES,
    NAMES,
    EXTERNAL,
    NODE_PORT,
    LOAD_BALANCER,
    INGRESS,
    READINESS,
    HEADLESS,
    TROUBLES,
)
