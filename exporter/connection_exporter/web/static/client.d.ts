/** Types of /client.js, the connection to a connection-exporter for front ends of your own. */

export type Status = "healthy" | "unhealthy" | "disconnected" | "connecting" | "unknown";
export type Overall = "healthy" | "degraded" | "partial" | "unknown";

/** Times are ISO 8601 in UTC; fields are null when not known. */
export interface Service {
  name: string;
  kind: string;
  status: Status;
  critical: boolean;
  reason: string | null;
  message: string | null;
  retry_count: number;
  retries: number;
  next_attempt: string | null;
  last_check: string | null;
  last_success: string | null;
  status_since: string;
  latency_seconds: number | null;
  session: { up: boolean; since: string | null };
  canary: { up: boolean | null; last: string | null };
  details: Record<string, unknown>;
  group: string | null;
  description: string | null;
  /** URLs by their titles. */
  links: Record<string, string>;
  depends_on: string[];
  /** The dependencies that explain why the service is not healthy. */
  causes: string[];
}

export interface Summary extends Record<Status, number> {
  total: number;
}

export interface Board {
  status: Overall;
  monitoring_active: boolean;
  last_update: string | null;
  uptime_seconds: number;
  summary: Summary;
  services: Record<string, Service>;
}

export interface Transition {
  name: string;
  kind: string;
  from: Status;
  to: Status;
  reason: string | null;
  message: string | null;
  at: string;
}

/** `name` is the service that changed, or null. */
export type Change =
  | { type: "board" | "overall" | "connection"; name: null }
  | { type: "service"; name: string }
  | { type: "transition"; name: string; transition: Transition };

/** A request that the exporter refused. `status` is the HTTP status, 0 if there was no answer. */
export declare class ExporterError extends Error {
  readonly status: number;
  /** Seconds to wait before the next request, or null. */
  readonly retryAfter: number | null;
}

export interface Connection {
  /** The last known board; null before the first one. */
  readonly status: Board | null;
  /** The number of services in total and in each status; null before the first board. */
  readonly summary: Summary | null;
  /** Whether events are arriving. While this is false, `status` is what was last known. */
  readonly connected: boolean;
  /** Why the connection is down; null while it is up. */
  readonly error: string | null;
  /** When the next attempt to reconnect is due, in milliseconds since the epoch, or null. */
  readonly nextAttempt: number | null;
  /** When something last arrived, in milliseconds since the epoch; 0 if nothing has. */
  readonly lastHeard: number;
  /** The exporter's clock, in milliseconds since the epoch. */
  now(): number;
  /** Calls `callback` for each change. Returns the function that ends this. */
  addCallback(callback: (change: Change) => void): () => void;
  /** Has the exporter check one service, or all, now. Rejects with an `ExporterError`. */
  forceCheck(name?: string): Promise<Board>;
  /** The last transitions of a service, newest first. Rejects with an `ExporterError`. */
  history(name: string): Promise<Omit<Transition, "name" | "kind">[]>;
  /** Tries to reconnect now. */
  reconnect(): void;
  /** Ends the connection for good. */
  close(): void;
}

/** Connects to the exporter at `url`: 5 attempts, 5 s apart, then up to 30 s apart, until `close()`. */
export declare function connect(url: string): Connection;
