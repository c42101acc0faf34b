// Starts Swagger UI on /docs.
"use strict";

window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  deepLinking: true,
  docExpansion: "none",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  filter: true,
  tryItOutEnabled: true,
  // A key is gone when the page is: it is never put into the browser's storage.
  persistAuthorization: false,
  // The description is sent to nobody for validation.
  validatorUrl: null,
});
