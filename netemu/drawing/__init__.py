"""Pictures of a running lab: turns its status and events into SVG, dot or Mermaid text.

Pure, and runs in the user's process. It asks no lab, writes no file and starts no program.
"""

from netemu.drawing.dot import dot
from netemu.drawing.mermaid import mermaid
from netemu.drawing.scene import Scene, scene
from netemu.drawing.svg import svg

FORMATS = {"svg": svg, "dot": dot, "mermaid": mermaid}

__all__ = ["FORMATS", "Scene", "dot", "mermaid", "scene", "svg"]
