INSERT INTO people (name) VALUES ('Ada');
INSERT INTO people (name) VALUES ('Grace');
