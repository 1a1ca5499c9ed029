// Starts Swagger UI on this server's own document. A file of its own, since the page's policy lets no script run that stands in the page.
"use strict";

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#operations",
  deepLinking: true,
  // Nothing is sent anywhere but to this server, and a key is forgotten with the page.
  validatorUrl: null,
  persistAuthorization: false,
  defaultModelsExpandDepth: -1,
  displayRequestDuration: true,
});
