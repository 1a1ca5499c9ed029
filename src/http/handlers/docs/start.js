// Starts Swagger UI with this server's document. In a file of its own, since the page's content
// security policy allows no inline script.
"use strict";

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#operations",
  deepLinking: true,
  // The page sends requests to this server only, and a key is forgotten when the page is closed.
  validatorUrl: null,
  persistAuthorization: false,
  defaultModelsExpandDepth: -1,
  displayRequestDuration: true,
});
