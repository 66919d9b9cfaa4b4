"""A Backstitch participant that shares no code with it: AMQP, and a database of its own.

Usage: shipping.py AMQP_URL DATABASE_FILE
"""
import json, sqlite3, sys
import pika

db = sqlite3.connect(sys.argv[2])
db.executescript("""
    CREATE TABLE IF NOT EXISTS shipment (id TEXT PRIMARY KEY, address TEXT, status TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS handled (message_id TEXT PRIMARY KEY, outcome TEXT NOT NULL, body TEXT NOT NULL);
""")

def handle(command, wanted):
    """What a command does and answers. A release may overtake the reserve that it undoes."""
    row = db.execute("SELECT status FROM shipment WHERE id = ?", (wanted["shipment"],)).fetchone()
    status = row[0] if row else None
    if command == "shipping.reserve" and status is None:
        if wanted["address"] == "nowhere":
            return "rejected", {"reason": "nobody delivers there"}
        db.execute("INSERT INTO shipment VALUES (?, ?, 'reserved')", (wanted["shipment"], wanted["address"]))
        return "succeeded", {"label": "label of " + wanted["shipment"]}
    if command == "shipping.confirm" and status == "reserved":
        db.execute("UPDATE shipment SET status = 'confirmed' WHERE id = ?", (wanted["shipment"],))
        return "succeeded", {"label": wanted["reservation"]["label"]}
    if command == "shipping.release" and status != "confirmed":
        db.execute("REPLACE INTO shipment VALUES (?, NULL, 'released')", (wanted["shipment"],))
        return "succeeded", {}
    return "rejected", {"reason": f"{command}: the shipment is {status}"}

def on_command(channel, method, properties, body):
    with db:  # What was done and what is answered are committed together, and before the ack.
        answer = db.execute("SELECT outcome, body FROM handled WHERE message_id = ?",
                            (properties.message_id,)).fetchone()
        if answer is None:
            outcome, result = handle(properties.type, json.loads(body))
            answer = outcome, json.dumps(result)
            db.execute("INSERT INTO handled VALUES (?, ?, ?)", (properties.message_id, *answer))
    channel.basic_publish("", properties.reply_to, answer[1], pika.BasicProperties(
        correlation_id=properties.correlation_id, content_type="application/json", delivery_mode=2,
        headers={"outcome": answer[0], "reason": json.loads(answer[1]).get("reason")}))
    channel.basic_ack(method.delivery_tag)

channel = pika.BlockingConnection(pika.URLParameters(sys.argv[1])).channel()
channel.queue_declare("shipping", durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 50,
    "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "backstitch.dead-letters"})
channel.confirm_delivery()  # basic_publish returns once the broker has the answer safely
channel.basic_qos(prefetch_count=50)
channel.basic_consume("shipping", on_command)
channel.start_consuming()
