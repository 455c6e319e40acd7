"""`/docs`: Swagger UI, out of a package and not from somebody else's servers."""

from importlib.resources import files

from fastapi import FastAPI, Response
from starlette.staticfiles import StaticFiles

# Of Swagger UI itself: it sets styles on its elements, and draws its icons from data URLs. Nothing else may be loaded.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Addresses are relative, so that a proxy may serve all of it under a prefix.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1.0">
<title>Lathe</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# A file of its own: the policy lets no script run that stands in a page.
START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis],
  validatorUrl: null,
});
"""


async def get_page() -> Response:
    """The interactive documentation."""
    return Response(PAGE, media_type="text/html", headers={"Content-Security-Policy": CONTENT_POLICY})


async def get_start() -> Response:
    """What the page runs."""
    return Response(START, media_type="text/javascript")


def install(app: FastAPI) -> None:
    """Have `app` answer `/docs` and what it loads."""
    app.add_api_route("/docs", get_page, include_in_schema=False)
    app.add_api_route("/docs/start.js", get_start, include_in_schema=False)
    app.mount("/docs/assets", StaticFiles(directory=str(files("fastapi_offline") / "static")))
