"""`osdisco cluster`: the search cluster as the mirror in the store shows it, and the mirror itself."""

from __future__ import annotations

import click

from osdisco.cli._settings import Group
from osdisco.cli.cluster._mirror import mirror
from osdisco.cli.cluster._shown import blocks, nodes, shards, state
from osdisco.cli.cluster._watch import watch


@click.group(cls=Group)
def cluster() -> None:
    """Show the search cluster as its mirror in the store does; none but the mirror asks the cluster itself.

    What may not be its present state is shown all the same, with the reason on stderr: 'not up to date'. With --json
    that is 'stale' in each document, null while there is none.
    """


for command in (blocks, mirror, nodes, shards, state, watch):
    cluster.add_command(command)
