"""A DNS server that knows one name, for the host outside to which an ExternalName leads.

python -m tour.world NAME ADDRESS: answers on port 53 of this address over UDP, until it is killed.
"""

import socket
import sys

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset


def reply(query: bytes, name: str, address: str) -> bytes:
    """Return the reply to a query: the address of this name, and no other name."""
    asked = dns.message.from_wire(query)
    answer = dns.message.make_response(asked, recursion_available=True)
    (question,) = asked.question
    if question.name != dns.name.from_text(name):
        answer.set_rcode(dns.rcode.NXDOMAIN)
    elif question.rdtype == dns.rdatatype.A:
        answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", address))
    return answer.to_wire()


def main(name: str, address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        while True:
            query, client = server.recvfrom(4096)
            server.sendto(reply(query, name, address), client)


if __name__ == "__main__":
    main(*sys.argv[1:])
