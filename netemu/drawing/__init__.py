"""Pictures of a running lab: from what it tells of itself to SVG, dot and Mermaid, as text.

Pure: reads a status and events that it is given, and gives text. It asks no lab, writes no file and
starts no program.
"""

from netemu.drawing.dot import dot
from netemu.drawing.mermaid import mermaid
from netemu.drawing.scene import Scene, scene
from netemu.drawing.svg import svg

FORMATS = {"svg": svg, "dot": dot, "mermaid": mermaid}

__all__ = ["FORMATS", "Scene", "dot", "mermaid", "scene", "svg"]
