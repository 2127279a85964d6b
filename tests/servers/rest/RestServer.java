package org.apache.iceberg.rest;

import jakarta.servlet.DispatcherType;
import jakarta.servlet.Filter;
import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.ServletRequest;
import jakarta.servlet.ServletResponse;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import org.apache.iceberg.CatalogUtil;
import org.eclipse.jetty.ee10.servlet.FilterHolder;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;

/**
 * Iceberg's own REST catalog for tests, on loopback alone, and for nobody without a token.
 *
 * <p>Standard input holds its properties, as lines of name=value, and an empty line; it ends when standard input does.
 * "owner" and "reader" are pairs of client id and secret: a reader changes nothing.
 */
public final class RestServer {
  private static final Set<String> READS = Set.of("GET", "HEAD");

  private RestServer() {}

  public static void main(String[] args) throws Exception {
    BufferedReader input =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    Map<String, String> properties = new HashMap<>();
    String line;
    while ((line = input.readLine()) != null && !line.isEmpty()) {
      int equals = line.indexOf('=');
      properties.put(line.substring(0, equals), line.substring(equals + 1));
    }
    Gate gate = new Gate(properties.remove("owner"), properties.remove("reader"));
    int port = Integer.parseInt(properties.remove("port"));
    var catalog = CatalogUtil.buildIcebergCatalog("rest_backend", properties, null);
    var adapter =
        new RESTServerCatalogAdapter(new RESTCatalogServer.CatalogContext(catalog, properties));
    var context = new ServletContextHandler("/");
    context.addServlet(new ServletHolder(new RESTCatalogServlet(adapter)), "/*");
    context.addFilter(new FilterHolder(gate), "/*", EnumSet.of(DispatcherType.REQUEST));
    Server server = new Server(new InetSocketAddress("127.0.0.1", port));
    server.setHandler(context);
    server.start();
    while (input.readLine() != null) {
      // Nothing more is expected: whoever started it ended, or wants it to end.
    }
    System.exit(0);
  }

  /** Gives a token for a client's id and secret, and lets nobody by without one. */
  private record Gate(String owner, String reader) implements Filter {
    @Override
    public void doFilter(ServletRequest asked, ServletResponse given, FilterChain chain)
        throws IOException, ServletException {
      var request = (HttpServletRequest) asked;
      var response = (HttpServletResponse) given;
      if (request.getRequestURI().equals("/v1/oauth/tokens")) {
        String client = request.getParameter("client_id") + ":" + request.getParameter("client_secret");
        if (!client.equals(owner) && !client.equals(reader)) {
          answer(response, 401, "{\"error\": \"invalid_client\", \"error_description\": \"unknown client\"}");
          return;
        }
        answer(
            response,
            200,
            "{\"access_token\": \"token-of-" + client + "\", \"token_type\": \"bearer\", \"expires_in\": 3600,"
                + " \"issued_token_type\": \"urn:ietf:params:oauth:token-type:access_token\"}");
        return;
      }
      String shown = String.valueOf(request.getHeader("Authorization"));
      if (shown.equals("Bearer token-of-" + reader) && !READS.contains(request.getMethod())) {
        refuse(response, 403, "ForbiddenException", "a reader changes nothing");
      } else if (!shown.equals("Bearer token-of-" + owner) && !shown.equals("Bearer token-of-" + reader)) {
        refuse(response, 401, "NotAuthorizedException", "not a token of this server");
      } else {
        chain.doFilter(request, response);
      }
    }

    private static void refuse(HttpServletResponse response, int code, String type, String message)
        throws IOException {
      answer(
          response,
          code,
          String.format(
              "{\"error\": {\"message\": \"%s\", \"type\": \"%s\", \"code\": %d}}", message, type, code));
    }

    private static void answer(HttpServletResponse response, int code, String body)
        throws IOException {
      response.setStatus(code);
      response.setContentType("application/json");
      response.getWriter().write(body);
    }
  }
}
