"""`netemu certificate`: what the documents that a lab signs are verified with."""

import click

from hostagent.terminal.output import say_data
from netemu.cli.options import of_lab


@click.command()
@of_lab
def certificate(name: str | None) -> None:
    """Print the certificate of the documents that a lab signs, in PEM.

    Azure's attested document has it inside; EC2's pkcs7, rsa2048 and signature are verified with
    it: netemu certificate > lab.pem, then openssl smime -verify -certfile lab.pem -noverify.
    """
    from netemu.client import labs

    say_data(labs.certificate(labs.the_one(name)))
